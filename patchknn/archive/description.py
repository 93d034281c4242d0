"""``shards/<uuid>.json``: where the arrays of a shard lie, and what they must be."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchknn.archive.sealed import CHECKSUM, check_format, damage
from patchknn.archive.settings import ArchiveSettings

SHARDS = "shards"
SHARD_FORMATS = ("zarr", "hdf5")
MAX_SHARD_BYTES = 4 << 30
_FORMAT = "patchknn-shard"
_FORMAT_VERSION = 1
_HEX64 = re.compile(r"[0-9a-f]{64}")
_SUFFIXES = {"zarr": ".zarr", "hdf5": ".h5"}


class ArrayPlace(NamedTuple):
    """One array as plain little-endian bytes in C order: ``file`` is relative to ``shards/``."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    checksum: str

    @property
    def nbytes(self) -> int:
        """Its length in the file; Python's integers cannot overflow."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class FileRecord(NamedTuple):
    """One file of a shard; ``checksum`` is over the bytes that belong to no array."""

    file: str
    size: int
    checksum: str


class ShardDescription(NamedTuple):
    """``sources`` are the lines of the source table; ``new_sources`` those that no earlier
    shard of the same writer holds already.
    """

    uuid: str
    container: str
    rows: int
    sources: int
    new_sources: int
    classes: tuple[str, ...]
    run_id: str | None
    arrays: dict[str, ArrayPlace]
    files: tuple[FileRecord, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of ``<uuid>.json``, not yet sealed."""
        return {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "checksum_algorithm": CHECKSUM,
            **self._asdict(),
            "arrays": {name: place._asdict() for name, place in self.arrays.items()},
            "files": [record._asdict() for record in self.files],
        }


def container_name(uuid: str, container: str) -> str:
    """The name of a shard's Zarr directory or HDF5 file."""
    return uuid + _SUFFIXES[container]


def expected_arrays(
    settings: ArchiveSettings, rows: int, sources: int
) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """dtype and shape of every array of a shard; None where the length is free (at least 1).

    Text is UTF-8 bytes with S + 1 offsets and a closing zero byte, so that no array is empty.
    ``source_key`` is the first 8 bytes, big-endian, of the name's SHA-256; the table is sorted
    by it.
    """
    feature = {"float16": "<f2", "float32": "<f4"}[settings.feature_dtype]
    arrays: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "features": (feature, (rows, settings.feature_dim)),
        "codes": ("|u1", (rows, settings.bits // 8)),
        "coords": ("<i8", (rows, 2)),
        "source": ("<i4", (rows,)),
        "label": ("<i4", (rows,)),
        "source_key": ("<u8", (sources,)),
        "source_size": ("<i8", (sources,)),
        "source_mtime_ns": ("<i8", (sources,)),
        "source_quickhash": ("|u1", (sources, 16)),
        "source_mpp": ("<f8", (sources,)),
    }
    for name in ("source_name", "source_path", "source_patient", "source_attributes"):
        arrays[f"{name}_bytes"] = ("|u1", (None,))
        arrays[f"{name}_offsets"] = ("<i8", (sources + 1,))
    arrays["thumbnail_bytes"] = ("|u1", (None,))
    arrays["thumbnail_offsets"] = ("<i8", (rows + 1,))
    return arrays


_EXTRAS = ("thumbnail", "source_attributes")
OPTIONAL_ARRAYS = frozenset(f"{name}_{part}" for name in _EXTRAS for part in ("bytes", "offsets"))


def parse_description(
    value: dict[str, Any], file: Path, path: Path, settings: ArchiveSettings
) -> ShardDescription:
    """Check a shard's JSON against the archive it lies in.

    Raises DamageError naming ``file`` where anything is missing, of a wrong type or shape, or
    points outside the shard, InputError where it is of a newer format.
    """
    check_format(value, file, path, _FORMAT, _FORMAT_VERSION)
    try:
        description = ShardDescription(
            uuid=_text(value["uuid"]),
            container=_text(value["container"]),
            rows=_count(value["rows"]),
            sources=_count(value["sources"]),
            new_sources=_count(value["new_sources"]),
            classes=tuple(_text(name) for name in value["classes"]),
            run_id=None if value["run_id"] is None else _text(value["run_id"]),
            arrays={_text(name): _place(place) for name, place in value["arrays"].items()},
            files=tuple(_record(record) for record in value["files"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        raise damage(
            path, f"{file} lacks an entry or holds one that cannot be ({error})."
        ) from None
    problem = _problem(description, file, settings)
    if problem is not None:
        raise damage(path, f"{file}: {problem}.")
    return description


def _problem(shard: ShardDescription, file: Path, settings: ArchiveSettings) -> str | None:
    if shard.uuid != file.stem:
        return "it describes another shard"
    if shard.container not in SHARD_FORMATS:
        return f"it names an unknown container {shard.container!r}"
    if not shard.rows > 0 or not 0 < shard.sources <= shard.rows:
        return f"{shard.rows} rows of {shard.sources} sources cannot be"
    expected = expected_arrays(settings, shard.rows, shard.sources)
    container = container_name(shard.uuid, shard.container)
    sizes = {}
    for record in shard.files:
        if not _is_inside(record.file, container):
            return f"{record.file!r} lies outside the shard"
        sizes[record.file] = record.size
    for name, (dtype, shape) in expected.items():
        place = shard.arrays.get(name)
        if place is None:
            if name not in OPTIONAL_ARRAYS:
                return f"the array {name} is missing"
            continue
        fits = len(place.shape) == len(shape) and all(
            (length > 0 if wanted is None else length == wanted)
            for length, wanted in zip(place.shape, shape, strict=True)
        )
        if place.dtype != dtype or not fits:
            return f"the array {name} is {place.dtype} {list(place.shape)}"
    for name in _EXTRAS:
        if (f"{name}_bytes" in shard.arrays) != (f"{name}_offsets" in shard.arrays):
            return f"the array {name} is there by half"
    for name, place in shard.arrays.items():  # those of a later version too
        if np.dtype(place.dtype).hasobject:
            return f"the array {name} is {place.dtype}, and no numbers"
        if place.file not in sizes:
            return f"the array {name} lies in {place.file!r}, which is no file of the shard"
        if place.offset + place.nbytes > sizes[place.file]:
            return f"the array {name} reaches beyond the end of {place.file}"
    return None


def _is_inside(name: str, container: str) -> bool:
    parts = name.split("/")
    return (
        parts[0] == container
        and name.isprintable()
        and "\\" not in name
        and not any(part in {"", ".", ".."} for part in parts)
    )


def _place(value: dict[str, Any]) -> ArrayPlace:
    dtype = _text(value["dtype"])
    np.dtype(dtype)
    shape = tuple([_count(length) for length in value["shape"]])
    return ArrayPlace(
        _text(value["file"]), _count(value["offset"]), dtype, shape, _hex(value["checksum"])
    )


def _record(value: dict[str, Any]) -> FileRecord:
    return FileRecord(_text(value["file"]), _count(value["size"]), _hex(value["checksum"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        message = f"{value!r} is no text"
        raise TypeError(message)
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        message = f"{value!r} is no count"
        raise TypeError(message)
    return value


def _hex(value: Any) -> str:
    if not isinstance(value, str) or not _HEX64.fullmatch(value):
        message = f"{value!r} is no checksum"
        raise TypeError(message)
    return value
