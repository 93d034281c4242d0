"""Index what was just published; where that fails the rows are published all the same."""

from __future__ import annotations

from pathlib import Path


def try_update_index(path: Path) -> str | None:
    """Update the index of the archive at ``path``, or leave it to the process that is at it.

    A sentence where that fails: searches are slower, and answer the same.
    """
    try:
        from patchknn.archive.index.update import update_index

        update_index(path, wait=False)
    except Exception as error:  # noqa: BLE001  whatever it is, the rows are published
        return (
            f"{path} is not indexed ({str(error).rstrip('.')}): searches are slower until "
            f"'patchknn archive index {path}' succeeds."
        )
    return None
