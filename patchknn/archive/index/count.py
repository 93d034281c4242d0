"""How much of a snapshot has an index, as far as the small files of its segments tell."""

from __future__ import annotations

import hashlib
import os
from math import prod
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

from patchknn.archive.index.names import (
    FORMAT,
    FORMAT_VERSION,
    SEGMENT_FILE,
    SUPERSEDED,
    is_segment_name,
    passed_over,
    segments_folder,
)
from patchknn.archive.manifest import Manifest
from patchknn.archive.sealed import read_sealed
from patchknn.archive.settings import ArchiveSettings
from patchknn.errors import DamageError

_KEY = 48  # a line of ``shards.bin`` begins with the shard's uuid (16 bytes) and checksum (32)


class Indexed(NamedTuple):
    """Segments that serve a snapshot, their rows, and a sentence for each that cannot be used."""

    segments: int
    rows: int
    problems: tuple[str, ...]


class _Unusable(Exception):  # noqa: N818
    """Why a segment is passed over."""


def count_indexed(path: Path, settings: ArchiveSettings, manifest: Manifest) -> Indexed:
    """Count the segments that ``cover.choose_cover`` would choose.

    Of large arrays the lengths are looked at, and not what is in them.
    """
    try:
        with os.scandir(segments_folder(path)) as entries:
            present = {entry.name for entry in entries}
    except OSError:  # no index
        return Indexed(0, 0, ())
    found, problems = [], []
    for name in sorted(filter(is_segment_name, present)):
        try:
            found.append(_read(segments_folder(path) / name, path, settings))
        except _Unusable as error:
            if f"{SUPERSEDED}{name}" not in present:
                problems.append(passed_over(path, str(error)))
    free = set(map(bytes.fromhex, map(add, manifest.shards.uuid, manifest.shards.checksum)))
    segments = rows = 0
    for own, keys in sorted(found, key=lambda pair: -pair[0]):  # stable: then by name
        if keys and free.issuperset(keys):
            free.difference_update(keys)
            segments, rows = segments + 1, rows + own
    return Indexed(segments, rows, tuple(problems))


def _read(folder: Path, path: Path, settings: ArchiveSettings) -> tuple[int, list[bytes]]:
    """The rows of a segment, and its shards."""
    file = folder / SEGMENT_FILE
    try:
        head = read_sealed(file, path)
    except DamageError as error:
        raise _Unusable(str(error).split(" See all that is wrong by ")[0]) from None
    if head.get("format") != FORMAT or head.get("format_version") != FORMAT_VERSION:
        message = f"{file} is of format {head.get('format_version')}, which is not used."
        raise _Unusable(message)
    if head.get("archive_id") != settings.archive_id:
        message = f"{folder} belongs to another archive."
        raise _Unusable(message)
    try:
        return _shards(folder, head)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        message = f"{file} lacks an entry or holds one that cannot be ({error})."
        raise _Unusable(message) from None


def _shards(folder: Path, head: dict[str, Any]) -> tuple[int, list[bytes]]:
    rows, width = head["rows"], head["arrays"]["shards"]["shape"][1]
    if not _is_count(rows) or not _is_count(width) or width < _KEY:
        message = "its shards"
        raise ValueError(message)
    small = {"shards": b"", "shard_sizes": b""}
    for name, record in head["arrays"].items():
        file = folder / f"{name}.bin"
        if not all(map(_is_count, record["shape"])):
            message = f"the shape of {name}"
            raise ValueError(message)
        length = prod(record["shape"]) * int(record["dtype"][-1])
        try:
            if file.stat().st_size != length:
                message = f"{file} cannot be mapped: it does not hold {length} bytes."
                raise _Unusable(message)
            if name in small:
                small[name] = file.read_bytes()
        except OSError as error:
            message = f"{file} cannot be mapped ({error})."
            raise _Unusable(message) from None
    for name, data in small.items():
        if hashlib.sha256(data).hexdigest() != head["arrays"][name]["checksum"]:
            message = f"{folder / name}.bin does not match its checksum."
            raise _Unusable(message)
    data = small["shards"]
    return rows, [data[start : start + _KEY] for start in range(0, len(data), width)]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48
