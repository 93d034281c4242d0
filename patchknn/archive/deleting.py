"""Deleting files and folders, also those that somebody reads at the moment."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path


def remove_any(path: Path) -> None:
    """Delete a file or a whole folder; one that is gone already is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_whole(path: Path) -> None:
    """``remove_any`` of a folder that others may read: it is gone at once, or there as a whole."""
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        path.rename(temporary)
    except FileNotFoundError:
        return
    remove_any(temporary)
