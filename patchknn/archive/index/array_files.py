"""Arrays of a segment as they are written: appended to or filled in place, hashed, synced."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from patchknn.archive.checksums import span_checksum
from patchknn.archive.index.layout import ArrayRecord, array_file
from patchknn.files import fsync_file

_ZEROS = 1 << 20


class ArrayFile:
    """One array that grows at its end; a context manager that syncs it on leaving.

    ``row`` is the shape of one entry of the array.
    """

    def __init__(self, folder: Path, name: str, dtype: str, row: tuple[int, ...] = ()) -> None:
        self._path = Path(array_file(folder, name))
        self._dtype, self._row = np.dtype(dtype), row
        self._digest = hashlib.sha256()
        self._file = self._path.open("xb")
        self.length = 0

    def append(self, values: npt.NDArray[Any]) -> None:
        """Entries (m, …), converted to the dtype."""
        data = np.ascontiguousarray(values, self._dtype).reshape(-1, *self._row)
        view = data.reshape(-1).view(np.uint8).data
        self._file.write(view)
        self._digest.update(view)
        self.length += len(data)

    @property
    def record(self) -> ArrayRecord:
        """What was written so far."""
        dtype = self._dtype.str
        return ArrayRecord(dtype, (self.length, *self._row), self._digest.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None:
            fsync_file(self._path)


def write_array(folder: Path, name: str, values: npt.NDArray[Any]) -> ArrayRecord:
    """One array that is there as a whole."""
    dtype = values.dtype.newbyteorder("<").str
    with ArrayFile(folder, name, dtype, values.shape[1:]) as file:
        file.append(values)
        return file.record


def new_array(folder: Path, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A file of zeros to be filled through this array; ``finished`` hashes and syncs it."""
    path = Path(array_file(folder, name))
    length = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with path.open("x+b") as file:
        if not length:
            return np.zeros(shape, dtype)
        _allocate(file, length)
        mapped = mmap.mmap(file.fileno(), length)
    return np.frombuffer(mapped, dtype).reshape(shape)


def _allocate(file: BinaryIO, length: int) -> None:
    """Give a file its zeros on disk: where there is no room for them a map of it would crash."""
    try:
        os.posix_fallocate(file.fileno(), 0, length)
    except (AttributeError, OSError) as error:  # some systems and network file systems cannot
        if isinstance(error, OSError) and error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        zeros = bytes(_ZEROS)
        for start in range(0, length, _ZEROS):
            file.write(zeros[: length - start])
        file.flush()


def finished(folder: Path, name: str, dtype: str, shape: tuple[int, ...]) -> ArrayRecord:
    """The record of a filled array, once it is on disk."""
    record = ArrayRecord(np.dtype(dtype).str, shape, "")
    path = Path(array_file(folder, name))
    fsync_file(path)
    return ArrayRecord(record.dtype, shape, span_checksum(path, 0, record.nbytes))
