"""Whether a file of an archive is what it was at first sight: there, plain, as long as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def file_problem(file: str | Path, size: int) -> str | None:
    """What is wrong with a file at first sight, as a sentence, or None."""
    try:
        found = os.lstat(file)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}."
    if not stat.S_ISREG(found.st_mode):
        return f"{file} is not a plain file."
    if found.st_size != size:
        return f"{file} holds {found.st_size} bytes instead of {size}."
    return None
