"""Writing a grid place by place, in memory that does not hang on how large the slide is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from patchknn.archive.containers import CREATORS
from patchknn.archive.streaming import Column
from patchknn.files import (
    errors_named,
    fsync_directory,
    fsync_file,
    swap_directory,
    temporary_beside,
)
from patchknn.wholeslide.grids.grid_info import GridInfo, as_attributes

SUFFIXES = {".h5": "hdf5", ".zarr": "zarr"}
_BLOCK_BYTES = 64 << 20


class GridWriter:
    """A grid file in the making: (A, D, H, W) float16, which is zero until a place is added.

    A context manager: the file appears as a whole at its end, in the place of one that was there,
    or not at all. ``path`` ends in ``.h5`` or ``.zarr``, ``shape`` is (A, D, H, W). On disk the
    vectors of one place lie far apart, so those of many are gathered first. What has no tissue is
    never written, and takes no room where the file system can leave it out.
    """

    def __init__(self, path: Path, info: GridInfo, shape: tuple[int, int, int, int]) -> None:
        self._path, self._info, self._shape = path, info, shape
        entries, dim, height, width = shape
        self._mask = np.zeros(height * width, bool)
        room = max(_BLOCK_BYTES // (2 * entries * dim), 1)
        self._block = np.zeros((entries * dim, min(room, max(height * width, 1))), np.float16)
        self._start = 0
        self._changed = range(0)  # of the block, from the first place to the last

    def add(self, places: NDArray[np.int64], vectors: NDArray[np.floating[Any]]) -> None:
        """Vectors (n, A, D) of n places (n, 2), rows and columns; any order, row by row is fastest.

        Each place once. Raises ValueError where one is not finite in float16.
        """
        entries, dim, _, width = self._shape
        with np.errstate(over="ignore"):
            columns = vectors.reshape(len(places), entries * dim).astype(np.float16).T
        if not np.isfinite(columns).all():
            message = "a feature is too large for float16"
            raise ValueError(message)
        numbers = places[:, 0] * width + places[:, 1]
        length = self._block.shape[1]
        blocks = numbers // length
        for block in np.unique(blocks).tolist():
            if block * length != self._start:
                self._flush()
                self._take_up(block * length)
            here = blocks == block
            within = numbers[here] - self._start
            self._block[:, within] = columns[:, here]
            ends = (*within.tolist(), *self._changed[:1], *self._changed[-1:])
            self._changed = range(min(ends), max(ends) + 1)
        self._mask[numbers] = True

    def _take_up(self, start: int) -> None:
        """Begin a block, with what was written of it before."""
        self._start = start
        self._block[:] = 0
        length = len(self._mask[start : start + self._block.shape[1]])
        if self._mask[start : start + length].any():
            for row, part in enumerate(self._block):
                data = os.pread(self._file, 2 * length, self._offset_of(row))
                written = np.frombuffer(data, np.float16)  # the file may not be as long yet
                part[: len(written)] = written

    def _flush(self) -> None:
        changed = self._changed
        for row, part in enumerate(self._block if changed else ()):
            offset = self._offset_of(row) + 2 * changed.start
            _write(self._file, part[changed.start : changed.stop], offset)
        self._changed = range(0)

    def _offset_of(self, row: int) -> int:
        return self._offset + 2 * (row * len(self._mask) + self._start)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = temporary_beside(self._path)
        height, width = self._shape[2:]
        # Of these only the shape is looked at: what is in them is written later, or never.
        columns = {
            "features": Column(np.broadcast_to(np.float16(0), self._shape)),
            "mask": Column(np.broadcast_to(np.bool_(0), (height, width))),
        }
        try:
            with errors_named(self._path, self._temporary):
                create = CREATORS[SUFFIXES[self._path.suffix]]
                places = create(self._temporary, columns, as_attributes(self._info))
                (file, self._offset), self._mask_place = places["features"], places["mask"]
                self._file = os.open(self._temporary / file, os.O_RDWR | os.O_CREAT, 0o666)
        except BaseException:
            _remove(self._temporary)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with errors_named(self._path, self._temporary):
                if kind is None:
                    self._finish()
        finally:
            os.close(self._file)
            _remove(self._temporary)

    def _finish(self) -> None:
        self._flush()
        end = self._offset + 2 * int(np.prod(self._shape, dtype=np.int64))
        if os.fstat(self._file).st_size < end:
            os.ftruncate(self._file, end)
        file, offset = self._mask_place
        mask = os.open(self._temporary / file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _write(mask, self._mask, offset)
        finally:
            os.close(mask)
        if self._temporary.is_file():
            fsync_file(self._temporary)
            self._temporary.replace(self._path)
            fsync_directory(self._path.parent)
            return
        for part in self._temporary.rglob("*"):
            if part.is_file():
                fsync_file(part)
            else:
                fsync_directory(part)
        swap_directory(self._temporary, self._path)


def copy_places(
    features: NDArray[np.floating[Any]], mask: NDArray[np.bool_], writer: GridWriter
) -> None:
    """Add the places of ``mask`` (H, W) with their ``features`` (A, D, H, W), row by row."""
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        columns = np.flatnonzero(mask[row])
        places = np.stack([np.full_like(columns, row), columns], axis=1)
        writer.add(places, np.moveaxis(features[:, :, row, columns], 2, 0))


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes left of the grid at ``path``, which none is at work on."""
    for part in path.parent.glob(f".tmp-{'[0-9a-f]' * 12}-*"):
        if part.name[len(".tmp-") + 13 :] == path.name:
            _remove(part)


def remove_grid(path: Path) -> None:
    """Delete a grid, if there is one."""
    if path.is_dir():
        gone = temporary_beside(path)
        path.rename(gone)  # half of a folder must never be taken for a grid
        _remove(gone)
    else:
        path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(file: int, values: NDArray[Any], offset: int) -> None:
    data = np.ascontiguousarray(values).view(np.uint8).reshape(-1).data
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
