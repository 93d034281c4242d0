"""``patchknn train``."""


def train() -> int:
    """(being written)."""
    return 1
