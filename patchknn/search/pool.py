"""What the first stage hands to the second, and what an answer demands of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.search.ranking import place_in_group
from patchknn.search.rows import RowNumbers

_NO_BITS = np.zeros(0, np.int64)


class Demand(NamedTuple):
    """An answer of ``k`` rows that ``admits`` lets through, at most ``per_group`` of one group.

    ``admits`` takes rows (m,) and says of each whether it may answer. Where all that it leaves
    out is a few known rows, ``skip`` (s,) names them, so that the others need not be looked at,
    and ``skip_bits`` (s,) holds their Hamming distances to the query; else ``skip`` is None.

    ``groups`` numbers the group of each row, None where nothing is capped. Ranking walks from the
    nearest row and passes over those of a full group, so a pool yields exactly the sum over its
    groups of min(size, ``per_group``) rows, whatever their order.
    """

    k: int
    admits: Callable[[RowNumbers], npt.NDArray[np.bool_]]
    skip: RowNumbers | None = None
    skip_bits: npt.NDArray[np.int64] = _NO_BITS
    groups: Callable[[RowNumbers], RowNumbers] | None = None
    per_group: int = 0

    def pool_length(self, ranked: RowNumbers, candidates: int) -> int | None:
        """How many of ``ranked`` rows, nearest first, a pool takes; None where more are needed.

        At least ``candidates``, and as many as yield k rows.
        """
        if len(ranked) < candidates:
            return None
        if self.groups is None:
            return candidates
        yielded = np.cumsum(place_in_group(self.groups(ranked)) < self.per_group)
        if len(yielded) == 0 or yielded[-1] < self.k:
            return None
        return max(candidates, int(np.searchsorted(yielded, self.k)) + 1)


class Pool(NamedTuple):
    """Rows (m,) that another coarse stage than the Hamming ball hands to the second.

    ``widened``: more than was asked for at first, so that k rows come back.
    """

    rows: RowNumbers
    widened: bool


class Yield:
    """How many rows of a growing pool an answer could hold."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._sizes = np.zeros(0, np.int64)
        self._total = 0

    def add(self, rows: RowNumbers) -> None:
        """Count rows (m,) that were not counted before."""
        if self._demand.groups is None:
            self._total += len(rows)
            return
        sizes = np.bincount(self._demand.groups(rows), minlength=len(self._sizes))
        sizes[: len(self._sizes)] += self._sizes
        self._sizes = sizes
        self._total = int(np.minimum(sizes, self._demand.per_group).sum())

    def suffices(self) -> bool:
        """Whether k rows can be had."""
        return self._total >= self._demand.k
