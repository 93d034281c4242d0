"""Queries from features that are already there: ``.npy`` files."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.errors import InputError
from patchknn.search.query import Query

FEATURE_SUFFIX = ".npy"
_LONGEST_HEADER = 1 << 16


def read_features(path: Path, dim: int) -> npt.NDArray[Any]:
    """Features (N, D) of a ``.npy`` file, memory-mapped; (D,) counts as one row.

    Raises InputError where the file is missing, is no such array, or has not ``dim`` columns.
    """
    try:
        head = _read_head(path)
    except FileNotFoundError:
        message = f"{path} does not exist."
        raise InputError(message) from None
    except OSError as error:
        message = f"{path} is not an array that NumPy can read: {error.strerror}."
        raise InputError(message) from None
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError):
        message = f"{path} is not an array that NumPy can read: it is no .npy file of numbers."
        raise InputError(message) from None
    if head.dtype.hasobject:
        message = f"{path} is not an array that NumPy can read: it holds a pickle, not numbers."
        raise InputError(message)
    if head.dtype.kind not in "fiu":
        message = f"{path} does not hold numbers: save features (N, {dim}) with numpy.save."
        raise InputError(message)
    shape = (1, dim) if head.shape == (dim,) else head.shape
    if len(shape) != 2 or shape[1] != dim:
        message = f"{path} holds features of shape {head.shape}; this archive needs (N, {dim})."
        raise InputError(message)
    if head.offset + math.prod(shape) * head.dtype.itemsize > path.stat().st_size:
        message = f"{path} is not an array that NumPy can read: it ends before its {shape[0]} rows."
        raise InputError(message)
    if shape[0] == 0:
        return np.zeros(shape, head.dtype)
    features: npt.NDArray[Any] = np.memmap(
        path, head.dtype, "r", head.offset, shape, "F" if head.fortran else "C"
    )
    return features


class _Head(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int


def _read_head(path: Path) -> _Head:
    """What a ``.npy`` file says of its array; ValueError and its like where it says nonsense.

    NumPy's own reader believes whatever stands there: a header of gigabytes, a shape beyond any
    memory, a pickle.
    """
    with path.open("rb") as file:
        start = file.read(12)
        if start[:6] != b"\x93NUMPY" or start[6:7] not in {b"\x01", b"\x02", b"\x03"}:
            raise ValueError(start)
        width = 2 if start[6] == 1 else 4
        length = int.from_bytes(start[8 : 8 + width], "little")
        if length > _LONGEST_HEADER:
            raise ValueError(length)
        file.seek(8 + width)
        text = file.read(length).decode("latin-1" if start[6] < 3 else "utf-8")
    value = ast.literal_eval(text.strip())
    shape, descr = value["shape"], value["descr"]
    if not isinstance(descr, str) or not isinstance(shape, tuple):
        raise TypeError(text)
    if not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(shape)
    return _Head(np.dtype(descr), shape, value["fortran_order"] is True, 8 + width + length)


def feature_queries(path: Path, dim: int) -> Iterator[Query]:
    """One query per row of a ``.npy`` file, named ``file.npy#row``. Raises as ``read_features``."""
    for row, feature in enumerate(read_features(path, dim)):
        yield Query(name=f"{path}#{row}", feature=np.array(feature))
