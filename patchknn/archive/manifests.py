"""Numbered manifests: the snapshots of an archive, published one after the other.

A manifest is linked into place by ``os.link``, which fails where the number is taken: of two
writers one wins, and the other reads what it published and tries the next number. An empty file
``.newest-N`` beside it says that there was a number N: that a newest one is gone would be noticed
by nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from patchknn.archive.manifest import Manifest, live_rows, manifest_from_json
from patchknn.archive.sealed import damage, read_sealed, sealed_text
from patchknn.archive.shard_list import ShardList
from patchknn.archive.totals import NOTHING
from patchknn.errors import ConflictError, DamageError, InputError
from patchknn.files import fsync_directory, fsync_file, temporary_beside

MANIFESTS = "manifests"
NEWEST = ".newest-"
_NAME = re.compile(r"(\d{8,12})\.json")
_MARK = re.compile(r"\.newest-(\d{8,12})")
_LAST_NUMBER = 10**12 - 1
# Each lost race is another writer's success; so many in a row is a file system that lies.
_ATTEMPTS = 10_000


def first_manifest(archive_id: str) -> dict[str, Any]:
    """Number 0, written when an archive is created: no rows yet."""
    return Manifest(
        number=0,
        archive_id=archive_id,
        nonce=os.urandom(16).hex(),
        parent=None,
        time=now(),
        action="create",
        run_id=None,
        rows=0,
        sources=0,
        rows_added=0,
        sources_added=0,
        classes=(),
        shards=ShardList(),
        totals=NOTHING,
    ).as_json()


def manifest_file(path: Path, number: int) -> Path:
    """Where manifest ``number`` of the archive at ``path`` lies."""
    return path / MANIFESTS / f"{number:08d}.json"


def manifest_numbers(path: Path) -> list[int]:
    """The numbers present, ascending. Raises DamageError where the folder or the newest is gone."""
    numbers, problem = numbers_and_problem(path)
    if problem is not None:
        raise problem
    return numbers


def numbers_and_problem(path: Path) -> tuple[list[int], DamageError | None]:
    """The numbers present, ascending, and what is wrong with the folder as a whole."""
    try:
        with os.scandir(path / MANIFESTS) as entries:
            names = [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return [], damage(path, f"{path / MANIFESTS} is missing.")
    numbers = {int(match[1]) for match in map(_NAME.fullmatch, names) if match}
    marked = max((int(match[1]) for match in map(_MARK.fullmatch, names) if match), default=0)
    problem = None
    if numbers and marked > max(numbers):
        # A file that appears while a folder is listed may be left out of the list.
        if manifest_file(path, marked).exists():
            numbers.add(marked)
        else:
            problem = damage(path, f"{manifest_file(path, marked)}, the newest, is missing.")
    return sorted(numbers), problem


def read_manifest(path: Path, archive_id: str, at: int | None = None) -> Manifest:
    """The newest manifest, or number ``at``.

    Raises InputError where the archive has no such number, DamageError where the file was
    changed or belongs to another archive.
    """
    numbers = manifest_numbers(path)
    if not numbers:
        raise damage(path, f"{path / MANIFESTS} holds no manifest.")
    if at is not None and at not in numbers:
        message = f"{path} has no snapshot {at}: it has {numbers[0]} to {numbers[-1]}."
        raise InputError(message)
    return read_manifest_file(path, archive_id, numbers[-1] if at is None else at)


def publish(
    path: Path,
    archive_id: str,
    revise: Callable[[Manifest], Manifest | None],
    *,
    action: str,
    run_id: str | None,
    known: Manifest | None = None,
) -> Manifest | None:
    """Put a new snapshot in the place of the newest, as one step, however many others do the same.

    ``revise`` is given the newest manifest, and again after each lost race, and returns it with
    what is to be changed; number, time and live rows are filled in here. With None nothing is
    published, and None is returned. The newest is not read where it is the one that is ``known``.
    Raises ConflictError where the folder does not let a new number appear.
    """
    parent = _newest(path, archive_id, known)
    for _ in range(_ATTEMPTS):
        revised = revise(parent.unchanged())
        if revised is None:
            return None
        if parent.number >= _LAST_NUMBER:
            message = f"{path} has no number left for another snapshot: export it to a new archive."
            raise ConflictError(message)
        manifest = revised._replace(
            number=parent.number + 1,
            archive_id=archive_id,
            nonce=os.urandom(16).hex(),
            parent=parent.nonce,
            time=now(),
            action=action,
            run_id=run_id,
            rows=live_rows(revised.shards, revised.changes),
        )
        if _link(path, manifest):
            return manifest
        # A listing may lag behind on a network file system; the number that is taken does not.
        newest = max(manifest_numbers(path)[-1], manifest.number)
        parent = read_manifest_file(path, archive_id, newest)
    message = f"{path / MANIFESTS} lets no new manifest appear; check that file system."
    raise ConflictError(message)


def _newest(path: Path, archive_id: str, known: Manifest | None) -> Manifest:
    if known is not None and manifest_numbers(path)[-1:] == [known.number]:
        # A repair may have put another one in its place, so the number alone does not tell.
        with suppress(OSError):
            if known.nonce.encode() in manifest_file(path, known.number).read_bytes():
                return known
    return read_manifest(path, archive_id)


def read_manifest_file(path: Path, archive_id: str, number: int) -> Manifest:
    """Manifest ``number`` without listing the folder; DamageError as ``read_manifest``."""
    file = manifest_file(path, number)
    manifest = manifest_from_json(read_sealed(file, path), file, path)
    if manifest.number != number or manifest.archive_id != archive_id:
        raise damage(path, f"{file} is the manifest of another archive or number.")
    return manifest


def _link(path: Path, manifest: Manifest) -> bool:
    file = manifest_file(path, manifest.number)
    if manifest_numbers(path)[-1] >= manifest.number:
        return False
    temporary = temporary_beside(file)
    text = sealed_text(manifest.as_json())
    try:
        temporary.write_bytes(text)
        fsync_file(temporary)
        try:
            os.link(temporary, file)
        except FileExistsError:  # NFS may say so of its own repeated request: the nonce decides
            pass
        fsync_directory(file.parent)
        if not _is_next(path, manifest, text):
            return False
        _mark_newest(path, manifest.number)  # not synced: where it is lost nothing is
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _is_next(path: Path, manifest: Manifest, text: bytes) -> bool:
    """Whether what was linked follows its parent, and nothing else does.

    A purge may have published and deleted that very number since the parent was read: then the
    newest does not come from this one, which is taken back. Manifests are deleted in the order of
    their numbers, so that one whose next is gone would be gone itself.
    """
    file = manifest_file(path, manifest.number)
    try:
        if file.read_bytes() != text:
            return False
    except FileNotFoundError:  # published, followed, and given up already
        return True
    if manifest_numbers(path)[-1] <= manifest.number:  # a listing may lag behind
        return True
    try:
        following = read_manifest_file(path, manifest.archive_id, manifest.number + 1)
    except DamageError:
        following = None
    if following is not None and following.parent == manifest.nonce:
        return True
    file.unlink(missing_ok=True)
    return False


def old_marks(path: Path) -> list[Path]:
    """Marks of numbers that are not the newest any more."""
    marks = sorted((path / MANIFESTS).glob(f"{NEWEST}*"), key=lambda mark: (len(mark.name), mark))
    return marks[:-1]


def _mark_newest(path: Path, number: int) -> None:
    """Of two processes the slower may leave an older mark too: the highest counts."""
    try:
        (path / MANIFESTS / f"{NEWEST}{number:08d}").touch()
        (path / MANIFESTS / f"{NEWEST}{number - 1:08d}").unlink(missing_ok=True)
    except OSError:  # such as a disk that is full: the snapshot is published all the same
        pass


def now() -> str:
    """The time as manifests give it: UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
