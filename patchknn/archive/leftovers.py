"""What killed writers leave behind: ``.tmp-*`` files that nobody reads, and their claims."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from patchknn.archive.change import CHANGES
from patchknn.archive.deleting import remove_any
from patchknn.archive.description import SHARDS
from patchknn.archive.index.names import INDEX, MOSAICS, SEGMENTS
from patchknn.archive.manifest import RECORDS
from patchknn.archive.manifests import MANIFESTS
from patchknn.archive.runs import RUNS

CLAIMS = ".claims"
JOBS = ".jobs"
_AGE = 7 * 24 * 3600
# Of a whole shard or change; of one file or folder, beside it; of records; a segment or mosaics.
_TEMPORARY = re.compile(
    r"\.tmp-([0-9a-f]{32}\.(json|zarr|h5|bin)|[0-9a-f]{12}-.+|records-\w+"
    r"|[0-9a-f]{16}-[0-9a-f]{12})",
    re.DOTALL,
)
# Of who claims, before that is whole too; of a unit, called by its slide.
_CLAIM = re.compile(
    r"(\.tmp-[0-9a-f]{16}|holder-.+-[0-9a-f]{16}|.+-[0-9a-f]{16}\.\d+)",
    re.DOTALL,
)


# By whom and how what is embedded was shared out: it names slides, and only informs.
_JOB_RECORD = re.compile(
    r"(\.tmp-[0-9a-f]{12}-)?(plan-[0-9a-f]{24}|\d{8}T\d{6}Z-[0-9a-f]{16})\.ndjson"
)


def leftovers(path: Path) -> Iterator[Path]:
    """Temporary files and folders of the archive at ``path``, and claims; of running writers too.

    A running writer's claims are never old: it renews them.
    """
    derived = (f"{INDEX}/{SEGMENTS}", f"{INDEX}/{MOSAICS}")
    names = (".", SHARDS, CHANGES, MANIFESTS, RECORDS, RUNS, *derived)
    for folder, own in [*((path / name, _TEMPORARY) for name in names), (path / CLAIMS, _CLAIM)]:
        try:
            every = os.listdir(folder)  # noqa: PTH208  a Path for each of thousands is slow
        except OSError:
            continue
        yield from (folder / name for name in filter(own.fullmatch, every))


def job_records(path: Path) -> list[Path]:
    """What the processes that embedded said of their units, which may be deleted at any time."""
    try:
        return [file for file in (path / JOBS).iterdir() if _JOB_RECORD.fullmatch(file.name)]
    except OSError:
        return []


def remove_leftovers(path: Path) -> None:
    """Delete what is older than a week of these; what may not be deleted stays."""
    oldest = time.time() - _AGE
    for file in leftovers(path):
        try:
            if file.lstat().st_mtime < oldest:
                remove_any(file)
        except OSError:
            continue
