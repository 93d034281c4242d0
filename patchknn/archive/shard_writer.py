"""Write one immutable shard under a temporary name; give it its own name when it is published."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from patchknn import __version__
from patchknn.archive.checksums import array_checksum, outside_checksum
from patchknn.archive.containers import WRITERS, Places, holds_plain_bytes
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
from patchknn.archive.shard_arrays import Arrays, nbytes, shard_arrays
from patchknn.archive.shard_list import ShardEntry
from patchknn.errors import ConflictError
from patchknn.files import errors_named, fsync_directory, fsync_file

_SYNC_THREADS = 16
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
    if nbytes(arrays) > MAX_SHARD_BYTES:
        message = f"a shard holds at most {MAX_SHARD_BYTES} bytes; these rows are {nbytes(arrays)}"
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
            with ThreadPoolExecutor(1) as hasher:  # hashing and writing wait for different things
                checksums = hasher.submit(_checksums, arrays)
                places = WRITERS[container](temporary, arrays, attributes)
                array_places = _array_places(name, temporary, arrays, places, checksums.result())
            files = _file_records(folder, name, temporary, array_places)
            n_sources = len(arrays["source_key"])
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


def _checksums(arrays: Arrays) -> dict[str, str]:
    return {name: array_checksum(values) for name, values in arrays.items()}


def _array_places(
    name: str, temporary: Path, arrays: Arrays, places: Places, checksums: dict[str, str]
) -> dict[str, ArrayPlace]:
    result = {}
    for array, values in arrays.items():
        inner, offset = places[array]
        if not holds_plain_bytes(temporary / inner, offset, values):
            message = (
                f"{temporary} does not hold {array} as plain bytes: this version of zarr or h5py "
                "writes otherwise; install another, or use the other --format."
            )
            raise ConflictError(message)
        file = f"{name}/{inner}" if inner else name
        result[array] = ArrayPlace(
            file, offset, _dtype(values), tuple(values.shape), checksums[array]
        )
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
    paths = [container, *container.rglob("*")]
    files = [path for path in paths if not path.is_dir()]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:  # each waits for the disk, not for a CPU
        list(pool.map(fsync_file, files))
        list(pool.map(fsync_directory, (path for path in paths if path.is_dir())))
    return files


def _dtype(values: npt.NDArray[Any]) -> str:
    return values.dtype.newbyteorder("<").str
