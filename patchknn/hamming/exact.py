"""The one float64 distance: what is shown, and what orders every answer."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.hamming.kernels import extension

_LANES = 8
_CHUNK_BYTES = 4 << 20  # what stays in a core's cache; larger chunks were slower


def l2_distances(
    features: npt.NDArray[Any], query: npt.NDArray[Any], rows: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float64]:
    """Euclidean distances of rows of ``features`` (n, D) to ``query`` (D,), float64 (m,).

    ``rows`` (m,) picks rows, 0 to n - 1; None takes all. In float64, both vectors padded with
    zeros to a multiple of 8: lane l of 8 adds up the squared differences of elements l, l + 8, …
    in this order; the sum is ((s0+s4) + (s2+s6)) + ((s1+s5) + (s3+s7)), the distance its square
    root, and every step rounds once. So a distance hangs on its two vectors alone, every path that
    calls this gives the same bits, and equal rows tie exactly.

    Raises ValueError where the shapes do not fit or a row is out of range.
    """
    target = np.ascontiguousarray(query, np.float64)
    if features.ndim != 2 or target.shape != features.shape[1:]:
        message = f"features of shape {features.shape} and a query of {target.shape} do not fit"
        raise ValueError(message)
    kernels = extension()
    if kernels is not None and in_place(features):
        return _with_kernels(kernels, features, target, rows)
    return _with_numpy(features, target, rows)


def in_place(features: npt.NDArray[Any]) -> bool:
    """Whether the kernels can read ``features`` (n, D) as they lie in memory."""
    native = features.dtype.isnative and features.dtype.kind == "f"
    plain = native and features.dtype.itemsize in {2, 4}
    return plain and features.flags.c_contiguous and 0 < features.shape[1] <= 1 << 16


def _with_kernels(
    kernels: ModuleType,
    features: npt.NDArray[Any],
    target: npt.NDArray[np.float64],
    rows: npt.NDArray[Any] | None,
) -> npt.NDArray[np.float64]:
    chosen = None if rows is None else np.ascontiguousarray(rows, np.int64)
    half = features.dtype.itemsize == 2
    # An array that is not aligned cannot be handed over as what it is, but as its bytes.
    held = features if features.flags.aligned else features.view(np.uint8)
    return np.frombuffer(kernels.distances(held, half, target, chosen), np.float64)


def _with_numpy(
    features: npt.NDArray[Any],
    target: npt.NDArray[np.float64],
    rows: npt.NDArray[Any] | None,
) -> npt.NDArray[np.float64]:
    n = len(features) if rows is None else len(rows)
    if rows is not None and n and not 0 <= int(np.min(rows)) <= int(np.max(rows)) < len(features):
        message = "rows: a number lies outside the features"
        raise ValueError(message)
    dim = len(target)
    padded = -(-dim // _LANES) * _LANES
    distances = np.empty(n, np.float64)
    step = max(1, _CHUNK_BYTES // (8 * max(1, padded)))
    for start in range(0, n, step):
        chosen = slice(start, start + step)
        block = features[chosen] if rows is None else features[rows[chosen]]
        difference = np.zeros((len(block), padded), np.float64)
        np.subtract(block, target, out=difference[:, :dim], dtype=np.float64)
        with np.errstate(over="ignore"):
            difference *= difference
        # Along an axis that is not the fastest NumPy adds one after the other, as defined.
        s = np.add.reduce(difference.reshape(len(block), -1, _LANES), axis=1).T
        total = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
        np.sqrt(total, out=distances[chosen])
    return distances
