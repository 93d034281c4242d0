"""``python -m patchknn``."""

from patchknn.cli.main import entry

if __name__ == "__main__":
    entry()
