"""``patchknn query``."""


def query() -> int:
    """(being written)."""
    return 1
