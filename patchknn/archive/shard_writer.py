"""Write one immutable shard under a temporary name; give it its own name when it is published."""

from __future__ import annotations

import json
import os
import secrets
from collections import defaultdict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from patchknn import __version__
from patchknn.archive.checksums import outside_checksum
from patchknn.archive.containers import CREATORS, Places
from patchknn.archive.deleting import remove_any
from patchknn.archive.description import (
    MAX_SHARD_BYTES,
    SHARDS,
    ArrayPlace,
    FileRecord,
    ShardDescription,
    container_name,
)
from patchknn.archive.rows import Rows
from patchknn.archive.sealed import sealed, sealed_text
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard_arrays import shard_arrays
from patchknn.archive.shard_list import ShardEntry
from patchknn.archive.streaming import Column, write_columns
from patchknn.files import errors_named, fsync_directory, fsync_file

_SYNC_THREADS = 8
# HDF5 takes attributes of up to 64 KiB; the shard's JSON names all classes in any case.
_MAX_ATTRIBUTE = 60_000


@dataclass(frozen=True)
class WrittenShard:
    """A whole shard on disk that no manifest names yet."""

    folder: Path
    description: ShardDescription
    entry: ShardEntry

    @property
    def names(self) -> tuple[str, str]:
        """Final names: container, then JSON, which is the last to appear."""
        uuid = self.description.uuid
        return container_name(uuid, self.description.container), f"{uuid}.json"

    def rename(self) -> None:
        """Give it its own name; nothing happens where it has it already.

        Raises FileNotFoundError where it is under neither: a snapshot must not name what is gone.
        """
        for name in self.names:
            temporary = self.folder / f".tmp-{name}"
            if temporary.exists() or not (self.folder / name).exists():
                temporary.rename(self.folder / name)

    def remove(self) -> None:
        """Delete it under either name."""
        for name in reversed(self.names):
            for file in (self.folder / name, self.folder / f".tmp-{name}"):
                remove_any(file)


def write_shard(
    path: Path,
    settings: ArchiveSettings,
    rows: Rows,
    *,
    container: str,
    run_id: str | None,
    new_sources: int | None = None,
) -> WrittenShard:
    """Write rows (n ≥ 1) as one shard of the archive at ``path``, synced to disk.

    ``new_sources``: how many of its sources no earlier shard holds; all by default. Whatever
    goes wrong, nothing of it is left.
    """
    arrays = shard_arrays(rows, settings)
    nbytes = sum(column.nbytes for column in arrays.values())
    if nbytes > MAX_SHARD_BYTES:
        message = f"a shard holds at most {MAX_SHARD_BYTES} bytes; these rows are {nbytes}"
        raise ValueError(message)
    uuid = secrets.token_hex(16)
    name = container_name(uuid, container)
    folder = path / SHARDS
    temporary = folder / f".tmp-{name}"
    temporary_json = folder / f".tmp-{uuid}.json"
    attributes: dict[str, Any] = {
        "format": "patchknn-shard",
        "patchknn_version": __version__,
        "uuid": uuid,
        "bits": settings.bits,
        "classes": json.dumps(rows.classes),
    }
    if len(attributes["classes"]) > _MAX_ATTRIBUTE:
        del attributes["classes"]
    try:
        with errors_named(path, folder):
            places = CREATORS[container](temporary, arrays, attributes)
            checksums = write_columns(temporary, arrays, places)
            array_places = _array_places(name, arrays, places, checksums)
            files = _file_records(folder, name, temporary, array_places)
            n_sources = arrays["source_key"].shape[0]
            description = ShardDescription(
                uuid=uuid,
                container=container,
                rows=len(rows),
                sources=n_sources,
                new_sources=n_sources if new_sources is None else new_sources,
                classes=rows.classes,
                run_id=run_id,
                arrays=array_places,
                files=files,
            )
            content = json.loads(json.dumps(description.as_json()))
            temporary_json.write_bytes(sealed_text(content))
            fsync_file(temporary_json)
            fsync_directory(folder)
    except BaseException:
        remove_any(temporary)
        remove_any(temporary_json)
        raise
    entry = ShardEntry(uuid, len(rows), description.new_sources, sealed(content)["checksum"])
    return WrittenShard(folder, description, entry)


def _array_places(
    name: str, arrays: Mapping[str, Column], places: Places, checksums: Mapping[str, str]
) -> dict[str, ArrayPlace]:
    result = {}
    for array, column in arrays.items():
        inner, offset = places[array]
        file = f"{name}/{inner}" if inner else name
        dtype = column.dtype.newbyteorder("<").str
        result[array] = ArrayPlace(file, offset, dtype, column.shape, checksums[array])
    return result


def _file_records(
    folder: Path, name: str, temporary: Path, places: dict[str, ArrayPlace]
) -> tuple[FileRecord, ...]:
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for place in places.values():
        spans[place.file].append((place.offset, place.nbytes))
    records = []
    for file in _synced_files(temporary):
        inner = file.relative_to(temporary).as_posix()
        final = name if inner == "." else f"{name}/{inner}"
        checksum = outside_checksum(file, spans[final])
        records.append(FileRecord(final, file.stat().st_size, checksum))
    fsync_directory(folder)
    return tuple(sorted(records, key=lambda record: record.file))


def _synced_files(container: Path) -> list[Path]:
    if container.is_file():
        fsync_file(container)
        return [container]
    folders, files = [], []
    for folder, _, names in os.walk(container):
        folders.append(Path(folder))
        files += [Path(folder, name) for name in names]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:  # each waits for the disk, not for a CPU
        synced = (pool.map(fsync_file, files), pool.map(fsync_directory, folders))
        deque(chain(*synced), maxlen=0)
    return files
