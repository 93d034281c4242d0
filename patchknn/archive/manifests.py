"""Numbered manifests: the snapshots of an archive, published one after the other.

A manifest is linked into place by ``os.link``, which fails where the number is taken: of two
writers one wins, and the other reads what it published and tries the next number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.sealed import check_format, damage, read_sealed, sealed_text
from patchknn.errors import ConflictError, InputError
from patchknn.files import fsync_directory, fsync_file, temporary_beside

MANIFESTS = "manifests"
_FORMAT = "patchknn-manifest"
_FORMAT_VERSION = 1
_NAME = re.compile(r"(\d{8,12})\.json")
_UUID = re.compile(r"[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
# Each lost race is another writer's success; so many in a row is a file system that lies.
_ATTEMPTS = 10_000


class ShardEntry(NamedTuple):
    """One live shard: rows, sources not counted by an earlier shard, checksum of its JSON."""

    uuid: str
    rows: int
    sources: int
    checksum: str


class Manifest(NamedTuple):
    """One snapshot. ``action`` and the counts added say what changed against the parent."""

    number: int
    archive_id: str
    nonce: str
    parent: str | None
    time: str
    action: str
    run_id: str | None
    rows: int
    sources: int
    rows_added: int
    sources_added: int
    classes: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    changes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The content of its file, not yet sealed."""
        return {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            **self._asdict(),
            "shards": [entry._asdict() for entry in self.shards],
        }


def first_manifest(archive_id: str) -> dict[str, Any]:
    """Number 0, written when an archive is created: no rows yet."""
    return Manifest(
        number=0,
        archive_id=archive_id,
        nonce=os.urandom(16).hex(),
        parent=None,
        time=_now(),
        action="create",
        run_id=None,
        rows=0,
        sources=0,
        rows_added=0,
        sources_added=0,
        classes=(),
        shards=(),
    ).as_json()


def manifest_file(path: Path, number: int) -> Path:
    """Where manifest ``number`` of the archive at ``path`` lies."""
    return path / MANIFESTS / f"{number:08d}.json"


def manifest_numbers(path: Path) -> list[int]:
    """The numbers present, ascending. Raises DamageError where the folder is gone."""
    try:
        with os.scandir(path / MANIFESTS) as entries:
            matches = [_NAME.fullmatch(entry.name) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        raise damage(path, f"{path / MANIFESTS} is missing.") from None
    return sorted(int(match[1]) for match in matches if match)


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
    entries: Callable[[Manifest], tuple[list[ShardEntry], list[str]]],
    *,
    action: str,
    run_id: str | None,
) -> Manifest | None:
    """Add shards to the newest snapshot, as one step, however many others do the same.

    ``entries`` is given the newest manifest, and again after each lost race, and returns the
    shards and class names to add; without any nothing is published and None is returned. Raises
    ConflictError where the folder does not let a new number appear.
    """
    parent = read_manifest(path, archive_id)
    for _ in range(_ATTEMPTS):
        shards, classes = entries(parent)
        if not shards:
            return None
        manifest = Manifest(
            number=parent.number + 1,
            archive_id=archive_id,
            nonce=os.urandom(16).hex(),
            parent=parent.nonce,
            time=_now(),
            action=action,
            run_id=run_id,
            rows=parent.rows + sum(entry.rows for entry in shards),
            sources=parent.sources + sum(entry.sources for entry in shards),
            rows_added=sum(entry.rows for entry in shards),
            sources_added=sum(entry.sources for entry in shards),
            classes=tuple(dict.fromkeys([*parent.classes, *classes])),
            shards=(*parent.shards, *shards),
            changes=parent.changes,
        )
        if _link(path, manifest):
            return manifest
        # A listing may lag behind on a network file system; the number that is taken does not.
        newest = max(manifest_numbers(path)[-1], manifest.number)
        parent = read_manifest_file(path, archive_id, newest)
    message = f"{path / MANIFESTS} lets no new manifest appear; check that file system."
    raise ConflictError(message)


def read_manifest_file(path: Path, archive_id: str, number: int) -> Manifest:
    """Manifest ``number`` without listing the folder; DamageError as ``read_manifest``."""
    file = manifest_file(path, number)
    manifest = _from_json(read_sealed(file, path), file, path)
    if manifest.number != number or manifest.archive_id != archive_id:
        raise damage(path, f"{file} is the manifest of another archive or number.")
    return manifest


def _link(path: Path, manifest: Manifest) -> bool:
    file = manifest_file(path, manifest.number)
    temporary = temporary_beside(file)
    try:
        temporary.write_bytes(sealed_text(manifest.as_json()))
        fsync_file(temporary)
        try:
            os.link(temporary, file)
        except FileExistsError:  # NFS may say so of its own repeated request: the nonce decides
            pass
        fsync_directory(file.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return read_manifest_file(path, manifest.archive_id, manifest.number).nonce == manifest.nonce


def _from_json(value: dict[str, Any], file: Path, path: Path) -> Manifest:
    check_format(value, file, path, _FORMAT, _FORMAT_VERSION)
    try:
        content = {k: v for k, v in value.items() if k in Manifest._fields}
        content["shards"] = tuple(ShardEntry(**entry) for entry in value["shards"])
        content["classes"] = tuple(value["classes"])
        content["changes"] = tuple(value.get("changes", ()))
        manifest = Manifest(**content)
    except (TypeError, KeyError):
        raise damage(path, f"{file} lacks an entry or holds one that cannot be.") from None
    if not _plausible(manifest):
        raise damage(path, f"{file} holds an entry that cannot be.")
    return manifest


def _plausible(manifest: Manifest) -> bool:
    shards = manifest.shards
    return (
        all(isinstance(name, str) for name in manifest.classes)
        and len(set(manifest.classes)) == len(manifest.classes)
        and all(isinstance(e.uuid, str) and _UUID.fullmatch(e.uuid) for e in shards)
        and all(isinstance(e.checksum, str) and _HEX64.fullmatch(e.checksum) for e in shards)
        and all(type(e.rows) is int and e.rows > 0 for e in shards)
        and all(type(e.sources) is int and e.sources >= 0 for e in shards)
        and len({e.uuid for e in shards}) == len(shards)
        and manifest.rows == sum(e.rows for e in shards)
        and manifest.sources == sum(e.sources for e in shards)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
