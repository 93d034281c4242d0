"""Deleting what no kept snapshot names: old manifests, replaced shards, what was left behind."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from patchknn.archive.change import CHANGES
from patchknn.archive.deleting import remove_any
from patchknn.archive.description import SHARDS
from patchknn.archive.leftovers import leftovers
from patchknn.archive.manifest import RECORDS, Manifest
from patchknn.archive.manifests import (
    manifest_file,
    manifest_numbers,
    old_marks,
    read_manifest_file,
)
from patchknn.archive.repair import DAMAGED
from patchknn.archive.runs import RUNS
from patchknn.archive.settings import ArchiveSettings, read_settings
from patchknn.errors import DamageError, InputError, UsageError
from patchknn.files import read_json

_DAY = 24 * 3600.0
WEEK = 7.0
OWN = {
    SHARDS: re.compile(r"[0-9a-f]{32}\.(json|zarr|h5)"),
    CHANGES: re.compile(r"[0-9a-f]{32}\.(json|bin)"),
    RECORDS: re.compile(r"[0-9a-f]{64}\.parquet"),
    RUNS: re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}\.json"),
    DAMAGED: re.compile(r"\d{8}T\d{6}Z"),
}


@dataclass(frozen=True)
class Collected:
    """What is deleted, or would be: snapshots by number, names of files by kind, bytes in all."""

    snapshots: tuple[int, ...]
    shards: tuple[str, ...]
    changes: tuple[str, ...]
    records: tuple[str, ...]
    runs: tuple[str, ...]
    leftovers: int
    bytes: int


def collect_garbage(
    path: Path, *, keep: int | None = None, older_than: float = WEEK, dry_run: bool = False
) -> Collected:
    """Delete what is older than ``older_than`` days and named by no snapshot that is kept.

    With ``keep`` snapshots before the newest that many are given up too, where they were replaced
    longer ago than that; without it all are kept. Files of running writers are younger: with 0
    days no other process may be writing. Of what patchknn does not write nothing is deleted.
    Raises DamageError where a manifest cannot be read, for what it names would be lost.
    """
    if (keep is not None and keep < 1) or older_than < 0:
        message = "--keep is at least 1 snapshot, --older-than at least 0 days."
        raise UsageError(message)
    settings = read_settings(path)
    oldest = time.time() - older_than * _DAY
    numbers = manifest_numbers(path)
    manifests = _read(path, settings, numbers)
    # A reader may be at a snapshot from before it was replaced: its age begins with the next one.
    following = dict(pairwise(numbers))
    given_up = [
        n
        for n in (numbers[:-keep] if keep is not None else [])
        if _is_older(manifest_file(path, following[n]), oldest)
    ]
    # What stands behind a younger snapshot stays, so that no gap is left.
    given_up = [n for place, n in enumerate(given_up) if n == numbers[place]]
    outdated = [manifest_file(path, n) for n in given_up]
    size = sum(map(_size, outdated))
    if not dry_run:  # manifests first: what is named must be there
        for file in outdated:
            remove_any(file)
        # What a rollback has named in the meantime stays.
        manifests |= _read(path, settings, [n for n in manifest_numbers(path) if n > numbers[-1]])
    named = _names(path, [m for n, m in manifests.items() if n not in given_up])
    unnamed = {
        folder: [file for file in _entries(path, folder) if _stem(file) not in named]
        for folder in (SHARDS, CHANGES, RECORDS, RUNS)
    }
    old = {
        folder: [file for file in files if _is_older(file, oldest)]
        for folder, files in unnamed.items()
    }
    left = [*leftovers(path), *_entries(path, DAMAGED), *old_marks(path)]
    left = [file for file in left if _is_older(file, oldest)]
    doomed = [*left, *(file for files in old.values() for file in files)]
    size += sum(map(_size, doomed))
    if not dry_run:
        for file in doomed:
            remove_any(file)
    return Collected(
        snapshots=tuple(given_up),
        shards=_stems(old[SHARDS]),
        changes=_stems(old[CHANGES]),
        records=_stems(old[RECORDS]),
        runs=_stems(old[RUNS]),
        leftovers=len(left),
        bytes=size,
    )


def _names(path: Path, manifests: list[Manifest]) -> set[str]:
    """Shards, changes and runs that these snapshots name, themselves or through their shards."""
    shards = {uuid for manifest in manifests for uuid in manifest.shards.uuid}
    changes = {e.uuid for m in manifests for e in (*m.changes, *m.label_history)}
    runs = {manifest.run_id for manifest in manifests}
    files = [path / SHARDS / f"{uuid}.json" for uuid in shards]
    files += [path / CHANGES / f"{uuid}.json" for uuid in changes]
    for file in files:
        with suppress(InputError):  # of a damaged one the run is not known
            run = read_json(file).get("run_id")
            runs.add(run if isinstance(run, str) else None)
    records = {entry.sha256 for manifest in manifests for entry in manifest.records}
    return shards | changes | records | {str(run) for run in runs if run}


def _read(path: Path, settings: ArchiveSettings, numbers: list[int]) -> dict[int, Manifest]:
    """These manifests, but those that another process deletes at this moment."""
    manifests = {}
    for number in numbers:
        try:
            manifests[number] = read_manifest_file(path, settings.archive_id, number)
        except DamageError:
            if manifest_file(path, number).exists():
                raise
    return manifests


def _entries(path: Path, folder: str) -> Iterator[Path]:
    """What patchknn itself writes into a folder: it may be a link to where others keep theirs."""
    try:
        with os.scandir(path / folder) as entries:
            yield from (Path(entry.path) for entry in entries if OWN[folder].fullmatch(entry.name))
    except FileNotFoundError:
        return


def _is_older(file: Path, oldest: float) -> bool:
    try:
        return file.lstat().st_mtime <= oldest
    except OSError:
        return False


def _size(file: Path) -> int:
    """Bytes of a file, or of all within a folder."""
    try:
        if file.is_dir() and not file.is_symlink():
            return sum(_size(inner) for inner in file.iterdir())
        return file.lstat().st_size
    except OSError:
        return 0


def _stems(files: list[Path]) -> tuple[str, ...]:
    return tuple(sorted(set(map(_stem, files))))


def _stem(file: Path) -> str:
    return file.name.split(".")[0]
