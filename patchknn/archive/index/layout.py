"""A segment on disk: ``index/segments/<hash>/`` with ``segment.json`` and one file an array."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.names import FORMAT, FORMAT_VERSION, SEGMENT_FILE
from patchknn.archive.mapping import map_array
from patchknn.archive.sealed import CHECKSUM, check_format, read_sealed, sealed_text
from patchknn.errors import DamageError, PatchknnError
from patchknn.files import fsync_file

MAX_ROWS = (1 << 32) - 1  # a row of a segment is a uint32
_ARRAY_NAME = re.compile(r"[a-z0-9_]{1,40}")
_FILE = re.compile(r"\.(h5|zarr(/[A-Za-z0-9_.-]+)+)")
_DTYPES = frozenset({"|u1", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"})

# One line a shard; ``json_checksum`` is over the bytes of its JSON as they lie on disk, and
# ``sizes`` of its files begin at ``first_size`` of ``shard_sizes``, by the names of a file set.
SHARD_LINE = np.dtype(
    [
        ("uuid", "|u1", 16),
        ("checksum", "|u1", 32),
        ("json_checksum", "|u1", 32),
        ("rows", "<i8"),
        ("sources", "<i8"),
        ("features_offset", "<i8"),
        ("features_file", "<i4"),
        ("file_set", "<i4"),
        ("first_size", "<i8"),
    ]
)


class ArrayRecord(NamedTuple):
    """One array: little-endian bytes in C order and nothing else, in ``<name>.bin``."""

    dtype: str
    shape: tuple[int, ...]
    checksum: str

    @property
    def nbytes(self) -> int:
        """Its length on disk."""
        length = np.dtype(self.dtype).itemsize
        for extent in self.shape:
            length *= extent
        return length


class SegmentHead(NamedTuple):
    """The content of ``segment.json``.

    ``parts``: (first bit, width) of each table of multi-index hashing; ``sketch``: scale and
    slack of the sketches, which are by position, None without them; ``file_sets``: names of a
    shard's files after its uuid.
    """

    archive_id: str
    bits: int
    rows: int
    sources: int
    codes: int
    parts: tuple[tuple[int, int], ...]
    sketch: dict[str, float] | None
    file_sets: tuple[tuple[str, ...], ...]
    arrays: dict[str, ArrayRecord]

    def as_json(self) -> dict[str, Any]:
        """Not yet sealed."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "checksum_algorithm": CHECKSUM,
            **self._asdict(),
            "arrays": {name: record._asdict() for name, record in self.arrays.items()},
        }


class SegmentError(PatchknnError):
    """A segment that cannot be used; the message completes "the segment …"."""


def write_head(folder: Path, head: SegmentHead) -> None:
    """Write ``segment.json``, synced to disk."""
    file = folder / SEGMENT_FILE
    file.write_bytes(sealed_text(head.as_json()))
    fsync_file(file)


def read_head(folder: Path, archive: Path) -> SegmentHead:
    """Read ``segment.json``.

    SegmentError where it is missing, changed, of another version or makes no sense.
    """
    file = folder / SEGMENT_FILE
    try:
        value = read_sealed(file, archive)
        check_format(value, file, archive, FORMAT, FORMAT_VERSION)
        if value["format_version"] != FORMAT_VERSION:
            message = f"{file} is of format {value['format_version']}, which is not used any more."
            raise SegmentError(message)
        return SegmentHead(
            archive_id=value["archive_id"],
            bits=_count(value["bits"]),
            rows=_count(value["rows"]),
            sources=_count(value["sources"]),
            codes=_count(value["codes"]),
            parts=tuple((_count(first), _count(width)) for first, width in value["parts"]),
            sketch=_floats(value["sketch"]),
            file_sets=tuple(tuple(map(_after_uuid, names)) for names in value["file_sets"]),
            arrays={_name(name): _record(entry) for name, entry in value["arrays"].items()},
        )
    except DamageError as error:
        raise SegmentError(str(error).split(" See all that is wrong by ")[0]) from None
    except PatchknnError as error:
        raise SegmentError(str(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = f"{file} lacks an entry or holds one that cannot be ({error})."
        raise SegmentError(message) from None


def array_file(folder: Path, name: str) -> str:
    """The file of one array."""
    return f"{folder}/{name}.bin"


def open_array(
    folder: Path, head: SegmentHead, name: str, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Map one array; SegmentError where it is not there in this dtype, shape and length.

    A length of -1 is free.
    """
    record = head.arrays.get(name)
    if record is None:
        message = f"{folder / SEGMENT_FILE} has no array {name}."
        raise SegmentError(message)
    fits = len(record.shape) == len(shape) and all(
        wanted in {-1, length} for wanted, length in zip(shape, record.shape, strict=True)
    )
    if record.dtype != dtype or not fits:
        message = f"The array {name} of {folder} is {record.dtype} {list(record.shape)}."
        raise SegmentError(message)
    try:
        return map_array(array_file(folder, name), dtype, record.shape)
    except (OSError, ValueError) as error:
        message = f"{array_file(folder, name)} cannot be mapped ({error})."
        raise SegmentError(message) from None


def _record(value: dict[str, Any]) -> ArrayRecord:
    dtype = value["dtype"]
    if dtype not in _DTYPES:
        raise ValueError(dtype)
    return ArrayRecord(dtype, tuple(_count(n) for n in value["shape"]), str(value["checksum"]))


def _after_uuid(name: Any) -> str:
    """The name of a shard's file from the end of its uuid on: it leads nowhere else."""
    if not isinstance(name, str) or not _FILE.fullmatch(name) or ".." in name.split("/"):
        message = f"{name!r} is no file of a shard"
        raise ValueError(message)
    return name


def _name(name: str) -> str:
    if not _ARRAY_NAME.fullmatch(name):
        raise ValueError(name)
    return name


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        message = f"{value!r} is no count"
        raise TypeError(message)
    return value


def _floats(value: dict[str, Any] | None) -> dict[str, float] | None:
    if value is None:
        return None
    return {str(name): float(number) for name, number in value.items()}
