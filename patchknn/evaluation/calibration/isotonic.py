"""The rising curve that fits best: pool adjacent violators."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Given = npt.NDArray[np.floating[Any]] | npt.NDArray[np.bool_]


class Curve(NamedTuple):
    """Knots ``x`` (m,), ascending, and ``y`` (m,), never falling; straight between, flat beyond."""

    x: Floats
    y: Floats

    def at(self, x: npt.NDArray[np.floating[Any]]) -> Floats:
        """The curve (n,) at ``x`` (n,)."""
        return np.asarray(np.interp(x, self.x, self.y), np.float64)


def isotonic(
    x: npt.NDArray[np.floating[Any]], y: Given, weights: npt.NDArray[Any] | None = None
) -> Curve:
    """The rising curve nearest to ``y`` (n,) at ``x`` (n,) in the least squares, n ≥ 1.

    Each counts by its ``weights`` (n,), which are above 0, and equal ``x`` get one value. Pool
    adjacent violators (Ayer 1955); of confidences Zadrozny and Elkan 2002.
    """
    values, inverse = np.unique(x, return_inverse=True)
    each = np.ones(len(x)) if weights is None else weights
    sizes = np.bincount(inverse, weights=each)
    totals = np.bincount(inverse, weights=y * each)
    sums: list[float] = []
    counts: list[float] = []
    starts: list[int] = []
    for place, pair in enumerate(zip(totals.tolist(), sizes.tolist(), strict=True)):
        total, count, start = *pair, place
        while sums and sums[-1] * count >= total * counts[-1]:
            total, count, start = total + sums.pop(), count + counts.pop(), starts.pop()
        sums.append(total)
        counts.append(count)
        starts.append(start)
    first = np.array(starts)
    last = np.append(first[1:], len(values)) - 1
    level = np.array(sums) / np.array(counts)
    # Of each level both ends are a knot: between levels the curve rises straight.
    ends = np.stack([first, last], axis=1)
    kept = np.stack([np.ones(len(first), bool), first != last], axis=1)
    return Curve(values[ends[kept]].astype(np.float64), np.repeat(level, kept.sum(axis=1)))


def grouped(
    x: npt.NDArray[np.floating[Any]], y: Given, groups: int
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Means of ``x`` and ``y`` (m,), and their numbers (m,), in up to so many groups of like size.

    Equal ``x`` stay together; they are taken in the order of ``x``.
    """
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    mine = np.unique(before * groups // len(x), return_inverse=True)[1][inverse]
    size = np.bincount(mine)
    return np.bincount(mine, weights=x) / size, np.bincount(mine, weights=y) / size, size
