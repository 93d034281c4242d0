"""Index what was just published; where that fails the rows are published all the same."""

from __future__ import annotations

from pathlib import Path

from patchknn.errors import PatchknnError


def try_update_index(path: Path) -> str | None:
    """Update the index of the archive at ``path``, or leave it to the process that is at it.

    A sentence where that fails: searches are slower, and answer the same.
    """
    try:
        from patchknn.archive.index.update import update_index

        update_index(path, wait=False)
    except Exception as error:  # noqa: BLE001  whatever it is, the rows are published
        if isinstance(error, PatchknnError):  # which says itself what is to be done
            return f"The new rows are not indexed: {error}"
        # Not the file: it lies in the archive that the remedy names.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return (
            f"The new rows are not indexed ({reason}): searches are slower until "
            f"'patchknn archive index {path}' succeeds."
        )
    return None
