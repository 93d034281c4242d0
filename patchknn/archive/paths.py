"""Where sources lie, without telling where somebody's files are.

A path is stored relative to the folder that the archive is in, where the source is below it, and
else not at all; absolute only where that was asked for.
"""

from __future__ import annotations

import os
from pathlib import Path


def stored_path(file: str, archive: Path, *, absolute: bool = False) -> str:
    """What an archive keeps of the path ``file`` of a source; nothing of one that is relative."""
    if absolute or not Path(file).is_absolute():
        return file if absolute else ""
    relative = os.path.relpath(file, archive.absolute().parent)
    return "" if relative.startswith("..") else Path(relative).as_posix()


def path_of(stored: str, name: str, archive: Path) -> str:
    """The path of a source by what was stored; its name where that is nothing."""
    if not stored:
        return name
    return stored if Path(stored).is_absolute() else str(archive.absolute().parent / stored)


def moved_path(stored: str, archive: Path, to: Path) -> str:
    """What the archive ``to`` keeps where ``archive`` has ``stored``; absolute paths stay so."""
    if not stored:
        return ""
    return stored_path(path_of(stored, "", archive), to, absolute=Path(stored).is_absolute())
