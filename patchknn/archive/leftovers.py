"""What killed writers leave behind: ``.tmp-*`` files that nobody reads."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from patchknn.archive.change import CHANGES
from patchknn.archive.description import SHARDS
from patchknn.archive.manifests import MANIFESTS
from patchknn.archive.runs import RUNS

_AGE = 7 * 24 * 3600
_PREFIX = ".tmp-"


def leftovers(path: Path) -> Iterator[Path]:
    """Temporary files and folders of the archive at ``path``, of running writers too."""
    for folder in (path, *(path / name for name in (SHARDS, CHANGES, MANIFESTS, RUNS))):
        try:
            with os.scandir(folder) as entries:
                yield from (Path(entry.path) for entry in entries if _is_temporary(entry.name))
        except OSError:
            continue


def remove_leftovers(path: Path) -> None:
    """Delete temporary files older than a week; what may not be deleted stays."""
    oldest = time.time() - _AGE
    for file in leftovers(path):
        try:
            if file.lstat().st_mtime < oldest:
                remove_any(file)
        except OSError:
            continue


def remove_any(path: Path) -> None:
    """Delete a file or a whole folder; one that is gone already is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_temporary(name: str) -> bool:
    return name.startswith(_PREFIX)
