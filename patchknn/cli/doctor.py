"""``patchknn doctor``."""


def doctor() -> int:
    """(being written)."""
    return 1
