"""Arrays mapped in place without keeping their files open: thousands fit any limit on files."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

# mmap.mmap keeps a file descriptor each until Python 3.13, and a thousand shards have more arrays
# than a process may have files open.
_LIBRARY: Any = None
if os.name == "posix" and ctypes.sizeof(ctypes.c_long) == 8:
    _LIBRARY = ctypes.CDLL(None, use_errno=True)
    _LIBRARY.mmap.restype = ctypes.c_void_p
    _LIBRARY.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _LIBRARY.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def map_array(
    file: str | os.PathLike[str], dtype: str, shape: tuple[int, ...], offset: int = 0
) -> npt.NDArray[Any]:
    """A read-only array over the bytes of ``file`` from ``offset`` on; unmapped with its last view.

    Raises OSError where the file cannot be mapped, ValueError where it ends before the array does;
    neither names the file, as those who call do.
    """
    kind = np.dtype(dtype)
    length = math.prod(shape) * kind.itemsize
    if length == 0:
        return np.zeros(shape, kind)
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise OSError(error.errno, error.strerror) from None
    try:
        if os.fstat(descriptor).st_size < offset + length:
            message = f"it ends before byte {offset + length}"
            raise ValueError(message)
        if _LIBRARY is None:
            whole = mmap.mmap(
                descriptor, offset - start + length, access=mmap.ACCESS_READ, offset=start
            )
            return np.frombuffer(whole, kind, math.prod(shape), offset - start).reshape(shape)
        owner = _Mapping(descriptor, start, offset - start, length)
    finally:
        os.close(descriptor)
    return np.asarray(owner).view(kind).reshape(shape)


class _Mapping:
    """Owns one mapping; NumPy keeps it alive as long as an array looks into it."""

    def __init__(self, descriptor: int, start: int, skip: int, length: int) -> None:
        self._address: int | None = None
        self._whole = skip + length
        address = _LIBRARY.mmap(
            None, self._whole, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start
        )
        if address in {None, _FAILED}:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address = address
        self._unmap = _LIBRARY.munmap
        self.__array_interface__ = {
            "data": (address + skip, True),
            "shape": (length,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        if self._address is not None:
            self._unmap(self._address, self._whole)
            self._address = None
