"""Removing what an archive derived earlier and nobody uses any more: segments, mosaics."""

from __future__ import annotations

import os
import time
from pathlib import Path

from patchknn.archive.deleting import remove_whole
from patchknn.archive.index.names import SUPERSEDED, TEMPORARY, is_segment_name, mosaics_folder

DAY = 24 * 3600.0


def tidy(folder: Path, used: set[str], grace: float) -> int:
    """Remove what has been out of use for ``grace`` seconds, or unfinished for a day; how much.

    Readers may still be at it. A mark beside what is not ``used`` says since when it is superseded.
    """
    oldest = time.time() - DAY
    removed = 0
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries}
    for name in sorted(names):
        mark = folder / f"{SUPERSEDED}{name}"
        if name.startswith(SUPERSEDED):
            own = name.removeprefix(SUPERSEDED)
            if own in used or own not in names:
                (folder / name).unlink(missing_ok=True)
        elif name.startswith(TEMPORARY):
            if _is_older(folder / name, oldest):
                removed += _removed(folder / name)
        elif is_segment_name(name) and name not in used:
            if mark.name not in names and grace:
                mark.touch()
            elif not grace or _is_older(mark, time.time() - grace):
                gone = _removed(folder / name)
                removed += gone
                if gone:
                    mark.unlink(missing_ok=True)
    return removed


def remove_mosaics(path: Path) -> int:
    """Remove whatever mosaics the archive at ``path`` keeps; how many folders.

    They are made anew when they are asked for.
    """
    folder = mosaics_folder(path)
    try:
        names = [entry.name for entry in folder.iterdir() if is_segment_name(entry.name)]
    except OSError:
        return 0
    return sum(_removed(folder / name) for name in names)


def _is_older(file: Path, oldest: float) -> bool:
    try:
        return file.lstat().st_mtime < oldest
    except OSError:
        return False


def _removed(folder: Path) -> int:
    """1 where it could be deleted: in a shared folder it may be another user's."""
    try:
        remove_whole(folder)
    except OSError:
        return 0
    return 1
