"""``patchknn demo``."""


def demo() -> int:
    """(being written)."""
    return 1
