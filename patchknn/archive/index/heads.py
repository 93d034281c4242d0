"""The segments of an archive at first sight: ``segment.json`` and the table of its shards."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.layout import (
    SHARD_LINE,
    SegmentError,
    SegmentHead,
    open_array,
    read_head,
)
from patchknn.archive.index.names import (
    SUPERSEDED,
    is_segment_name,
    passed_over,
    segments_folder,
)
from patchknn.archive.opening import Voucher

_COLUMNS = ("rows", "sources", "features_offset", "features_file", "file_set", "first_size")


class Head:
    """One segment whose small files are whole; its large arrays are not looked at yet."""

    def __init__(
        self,
        folder: Path,
        head: SegmentHead,
        lines: npt.NDArray[Any],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        self.folder = folder
        self.head = head
        self.lines = lines
        self.sizes = sizes

    @cached_property
    def shards(self) -> tuple[tuple[str, str], ...]:
        """uuid and checksum of each shard, in the segment's order."""
        # Thousands of shards are usual, and each of these is many times faster for all at once.
        uuids, checksums = (_pieces(self.lines[name]) for name in ("uuid", "checksum"))
        return tuple(zip(uuids, checksums, strict=True))

    def vouchers(self, which: npt.NDArray[np.int64]) -> list[Voucher | None]:
        """What it knows of the shards of these lines; None where it makes no sense."""
        lines, file_sets = self.lines[which], self.head.file_sets
        columns = (lines[name].tolist() for name in _COLUMNS)
        digests = (_pieces(lines[name]) for name in ("checksum", "json_checksum"))
        found: list[Voucher | None] = []
        for checksum, digest, rows, sources, offset, file, file_set, first in zip(
            *digests, *columns, strict=True
        ):
            voucher = None
            if 0 <= file_set < len(file_sets) and min(offset, first, file) >= 0:
                names = file_sets[file_set]
                sizes = self.sizes[first : first + len(names)].tolist()
                if len(sizes) == len(names) > file:
                    place = (names[file], offset)
                    voucher = Voucher(checksum, digest, rows, sources, names, sizes, place)
            found.append(voucher)
        return found


def _pieces(column: npt.NDArray[np.uint8]) -> list[str]:
    """Rows (n, m) of bytes in hexadecimal."""
    text, width = column.tobytes().hex(), 2 * column.shape[1]
    return [text[start : start + width] for start in range(0, len(text), width)]


def read_heads(path: Path) -> tuple[list[Head], list[str]]:
    """The segments of the archive at ``path`` by name, and a sentence for each unusable one.

    None for what others have superseded: it is only waiting to be removed.
    """
    heads, problems = [], []
    try:
        with os.scandir(segments_folder(path)) as entries:
            present = {entry.name for entry in entries}
    except OSError:  # no index
        return [], []
    for name in sorted(filter(is_segment_name, present)):
        try:
            heads.append(read_one(segments_folder(path) / name, path))
        except SegmentError as error:
            if f"{SUPERSEDED}{name}" not in present:
                problems.append(passed_over(path, str(error)))
    return heads, problems


def read_one(folder: Path, path: Path) -> Head:
    """One segment of the archive at ``path``; SegmentError where a small file is damaged."""
    head = read_head(folder, path)
    lines = _small(folder, head, "shards", "|u1", (-1, SHARD_LINE.itemsize))
    sizes = _small(folder, head, "shard_sizes", "<i8", (-1,))
    return Head(folder, head, lines.view(SHARD_LINE)[:, 0], sizes)


def _small(
    folder: Path, head: SegmentHead, name: str, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """An array small enough to be compared with its checksum at once."""
    values = open_array(folder, head, name, dtype, shape)
    if hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest() != (
        head.arrays[name].checksum
    ):
        message = f"{folder / name}.bin does not match its checksum."
        raise SegmentError(message)
    return values.copy()
