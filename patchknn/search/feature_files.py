"""Queries from features that are already there: ``.npy`` files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.errors import InputError
from patchknn.search.query import Query

FEATURE_SUFFIX = ".npy"


def read_features(path: Path, dim: int) -> npt.NDArray[Any]:
    """Features (N, D) of a ``.npy`` file, memory-mapped; (D,) counts as one row.

    Raises InputError where the file is missing, is no such array, or has not ``dim`` columns.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        message = f"{path} does not exist."
        raise InputError(message) from None
    except (ValueError, EOFError, OSError) as error:
        # What is neither an array nor a zip NumPy takes for a pickle, and offers to load it.
        reason = "it is no .npy file of numbers." if "pickle" in str(error) else str(error)
        message = f"{path} is not an array that NumPy can read: {reason}"
        raise InputError(message) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        message = f"{path} does not hold numbers: save features (N, {dim}) with numpy.save."
        raise InputError(message)
    if array.shape == (dim,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != dim:
        message = f"{path} holds features of shape {array.shape}; this archive needs (N, {dim})."
        raise InputError(message)
    features: npt.NDArray[Any] = array
    return features


def feature_queries(path: Path, dim: int) -> Iterator[Query]:
    """One query per row of a ``.npy`` file, named ``file.npy#row``. Raises as ``read_features``."""
    for row, feature in enumerate(read_features(path, dim)):
        yield Query(name=f"{path}#{row}", feature=np.array(feature))
