"""Arrays on their way to disk, block by block: gathered, hashed, written and synced all at once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_BLOCK_BYTES = 4 << 20
_AHEAD = 4  # blocks that are gathered while others are written
_BEHIND = 4  # blocks that are hashed and written
_GATHERERS = 2
_SYNCERS = 4  # they wait for the disk, not for a CPU
_SYNC_BYTES = 16 << 20  # a disk that begins early ends early
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


@dataclass(frozen=True)
class Column:
    """``values`` (n, …), or the rows ``order`` (m,) of them: an array that is never whole.

    It is little-endian and in C order.
    """

    values: npt.NDArray[Any]
    order: npt.NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        n = len(self.values) if self.order is None else len(self.order)
        return (n, *self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Its length on disk."""
        return self.shape[0] * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """The length of one row."""
        return self.values.dtype.itemsize * int(np.prod(self.values.shape[1:], dtype=np.int64))

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows of the array."""
        if self.order is None:
            return self.values[start:stop]
        return np.take(self.values, self.order[start:stop], axis=0)


class _File:
    """A file that several threads write to, and that may be closed under them.

    Signals end who waits for threads, and not the threads: into a number that is closed they
    would write what belongs there into the next file to be opened.
    """

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._busy = threading.Lock()

    def write(self, data: memoryview, offset: int) -> None:
        """All of the data, from this byte on; ValueError where the file is closed."""
        with self._busy:
            number = self._open_number()
            while data:
                written = os.pwrite(number, data, offset)
                data, offset = data[written:], offset + written

    def sync(self) -> None:
        """Force to disk what is written by now."""
        copy = os.dup(self._open_number())  # not to keep those waiting who write
        try:
            _sync(copy)
        finally:
            os.close(copy)

    def close(self) -> None:
        """Once nobody writes."""
        with self._busy:
            number, self._number = self._number, -1
        os.close(number)

    def _open_number(self) -> int:
        if self._number < 0:
            message = "the file is closed"
            raise ValueError(message)
        return self._number


class _Block(NamedTuple):
    """Rows of one column, and where they go."""

    name: str
    start: int
    stop: int
    file: _File
    offset: int
    ends_file: bool


def write_columns(
    folder: Path, columns: Mapping[str, Column], places: Mapping[str, tuple[str, int]]
) -> dict[str, str]:
    """Write each column to its file below ``folder`` ("": itself) at its offset.

    Returns the SHA-256 of each. Of long ones most is on disk by then; to sync the files is left
    to whoever knows all of them. Memory is needed for a few blocks, however long the columns.
    """
    digests = {name: hashlib.sha256() for name in columns}
    with ExitStack() as closing:
        files: dict[str, _File] = {}
        for file in dict.fromkeys(file for file, _ in places.values()):
            files[file] = _File(folder / file)
            closing.callback(files[file].close)
        blocks = _blocks(columns, {name: (files[file], at) for name, (file, at) in places.items()})
        if sum(column.nbytes for column in columns.values()) <= _BLOCK_BYTES:
            for block in blocks:  # threads would take longer to start
                data = _data(columns[block.name], block)
                digests[block.name].update(data)
                block.file.write(data, block.offset)
        else:
            _stream(columns, blocks, digests)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _stream(
    columns: Mapping[str, Column], blocks: Iterator[_Block], digests: Mapping[str, hashlib._Hash]
) -> None:
    gathered: deque[tuple[_Block, Future[memoryview]]] = deque()
    begun: deque[tuple[Future[None], Future[None]]] = deque()
    syncs: list[Future[None]] = []
    unsynced = 0
    with ExitStack() as pools:
        gatherers, hasher, writer, syncers = (
            pools.enter_context(ThreadPoolExecutor(n)) for n in (_GATHERERS, 1, 1, _SYNCERS)
        )

        def write(block: _Block, data: memoryview) -> None:
            nonlocal unsynced
            block.file.write(data, block.offset)
            unsynced += len(data)
            if block.ends_file or unsynced >= _SYNC_BYTES:
                syncs.append(syncers.submit(block.file.sync))
                unsynced = 0

        def pass_on() -> None:
            block, future = gathered.popleft()
            data = future.result()
            hashed = hasher.submit(digests[block.name].update, data)
            begun.append((hashed, writer.submit(write, block, data)))
            if len(begun) > _BEHIND:
                _wait(*begun.popleft())

        for block in blocks:
            gathered.append((block, gatherers.submit(_data, columns[block.name], block)))
            if len(gathered) > _AHEAD:
                pass_on()
        while gathered:
            pass_on()
        for pair in begun:
            _wait(*pair)
        _wait(*syncs)  # an error of the disk is told once, and here


def _wait(*futures: Future[None]) -> None:
    for future in futures:
        future.result()


def _blocks(
    columns: Mapping[str, Column], places: Mapping[str, tuple[_File, int]]
) -> Iterator[_Block]:
    last = {file: name for name, (file, _) in places.items()}
    for name, column in columns.items():
        file, offset = places[name]
        n, row_bytes = column.shape[0], column.row_bytes
        step = max(_BLOCK_BYTES // row_bytes, 1)
        for start in range(0, n, step):
            stop = min(start + step, n)
            ends = stop == n and last[file] == name
            yield _Block(name, start, stop, file, offset + start * row_bytes, ends)


def _data(column: Column, block: _Block) -> memoryview:
    return column.rows(block.start, block.stop).reshape(-1).view(np.uint8).data
