"""Patients drawn with replacement, and what the sums over queries become in each draw.

Queries of one patient are alike, so patients are drawn, not queries (the cluster bootstrap:
Davison and Hinkley 1997, 3.8). Sums per patient are made once; a draw weighs them by how often
each patient was drawn, so that no query is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

_CELLS = 1 << 21  # numbers that a block of draws holds at once
_MOST_DENSE = 1 << 17
_LEVEL = 0.95

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


class GroupedSums:
    """Sums of m columns (n, m) over n queries by key, in whatever draw of their groups.

    ``groups`` (n,) numbers from 0 to G, the patients; ``keys`` (n,) numbers from 0 to K, such as
    classes, which are summed apart.
    """

    def __init__(
        self,
        groups: npt.NDArray[np.integer[Any]],
        keys: npt.NDArray[np.integer[Any]],
        columns: Floats,
    ) -> None:
        self._n_groups = int(groups.max()) + 1
        self._n_keys = int(keys.max()) + 1
        pairs, place = np.unique(
            keys.astype(np.int64) * self._n_groups + groups, return_inverse=True
        )
        self._key, self._group = np.divmod(pairs, self._n_groups)
        self._values = np.stack(
            [np.bincount(place, weights=column, minlength=len(pairs)) for column in columns.T],
            axis=1,
        )
        self._starts = np.flatnonzero(np.diff(self._key, prepend=-1))
        width = self._n_keys * columns.shape[1]
        self._dense: Floats | None = None
        if self._n_groups * width <= _MOST_DENSE:  # a matrix product is faster where it fits
            dense = np.zeros((self._n_groups, self._n_keys, columns.shape[1]))
            dense[self._group, self._key] = self._values
            self._dense = dense.reshape(self._n_groups, width)

    @property
    def size(self) -> int:
        """How many numbers one draw takes up meanwhile."""
        return max(len(self._group), self._n_groups, self._n_keys * int(self._values.shape[1]))

    def drawn(self, weights: Floats) -> Floats:
        """The sums (b, K, m) of b draws; ``weights`` (b, G) says how often each group was drawn."""
        m = self._values.shape[1]
        if self._dense is not None:
            return np.asarray((weights @ self._dense).reshape(len(weights), self._n_keys, m))
        sums = np.zeros((len(weights), self._n_keys, m))
        by_group = np.ascontiguousarray(weights.T)  # what is fetched together lies together
        for start, stop in pairwise([*self._starts.tolist(), len(self._key)]):
            drawn = by_group[self._group[start:stop]]
            # Threads of a matrix product this thin would but wait for each other.
            for column, values in enumerate(self._values[start:stop].T):
                sums[:, self._key[start], column] = (drawn * values[:, None]).sum(axis=0)
        return sums


def draws(n_groups: int, replicates: int, seed: int, size: int) -> Iterator[Floats]:
    """How often each of the groups comes up in draws of as many, as blocks (b, G) of weights.

    ``size`` numbers are needed for each draw of a block. The draws hang on ``seed`` alone, not on
    how they are put into blocks.
    """
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // max(size, 1))
    for start in range(0, replicates, block):
        count = min(block, replicates - start)
        chosen = (rng.integers(n_groups, size=n_groups) for _ in range(count))
        each = [np.bincount(one, minlength=n_groups) for one in chosen]
        yield np.stack(each).astype(np.float64)


def dense_numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Values (n,) as numbers from 0 without gaps, in the order of the values."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def middle(values: Floats) -> Interval | None:
    """From where to where the middle 95 % of the values lie; None where all are NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return low, high
