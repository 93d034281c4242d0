"""Sorting rows by several columns, and gathering them in that order, as fast as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_FEW = 4096
_THREADS = 4
_BLOCK_BYTES = 8 << 20


def order_by(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """The rows (n,) in the order of columns (n,) of integers, the first column first; stable.

    What ``numpy.lexsort`` gives. Mostly the first column decides, and to sort it with the row
    numbers in its last bits is many times faster than to sort row numbers by it.
    """
    n, reverse = len(columns[0]), tuple(columns[::-1])
    if n < _FEW:
        return np.lexsort(reverse).astype(np.int64, copy=False)
    row_bits = (n - 1).bit_length()
    first = columns[0]
    keys = first.astype(np.uint64) - np.uint64(int(first.min()) % (1 << 64))
    surplus = max(int(keys.max()).bit_length() + row_bits - 64, 0)
    keys = keys >> np.uint64(surplus) << np.uint64(row_bits)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64((1 << row_bits) - 1)).astype(np.int64)
    keys >>= np.uint64(row_bits)
    tied = np.zeros(n + 1, bool)
    np.equal(keys[1:], keys[:-1], out=tied[1:-1])
    places = np.flatnonzero(tied[1:] | tied[:-1])  # equal to the one before, or the one after
    rows = order[places]
    order[places] = rows[np.lexsort([column[rows] for column in reverse])]
    return order


def gathered(values: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """``values[order]`` for rows (m,), in several threads where that is much."""
    if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(values):
        taken: npt.NDArray[Any] = values[order]  # counted from the end, or an error
        return taken
    result = np.empty((len(order), *values.shape[1:]), values.dtype)
    step = max(_BLOCK_BYTES // max(values[:1].nbytes, 1), 1)

    def fill(start: int) -> None:
        rows = order[start : start + step]
        # The order is right; "clip" alone lets NumPy write without a copy between.
        np.take(values, rows, axis=0, out=result[start : start + step], mode="clip")

    starts = range(0, len(order), step)
    if len(starts) <= 1:
        for start in starts:
            fill(start)
    else:
        from concurrent.futures import ThreadPoolExecutor  # nobody who only searches gets here

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fill, starts))
    return result
