"""The rows of a few sources, found without a look at all rows once many have been asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard
from patchknn.search.rows import RowNumbers

FEW = 256
_ROWS_PER_QUERY = 4096  # that are put in order in the time that a query without it takes longer

Sources = Mapping[Shard, set[int]]


class OwnRows:
    """Rows by source: 4 bytes a row, from when so many queries have asked that it is worth it."""

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._asked = 0
        self._ordered: dict[Shard, tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]] = {}

    def of_each(self, owns: Sequence[Sources]) -> list[RowNumbers | None]:
        """The live rows of the sources of each query, ascending; None where they are not few."""
        self._asked += len(owns)
        if self._asked * _ROWS_PER_QUERY < self._n_rows:
            return [None] * len(owns)
        return [self._of(own) for own in owns]

    def _of(self, own: Sources) -> RowNumbers | None:
        runs = []
        for shard, sources in own.items():
            order, bounds = self._rows_of(shard)
            runs += [(shard, order[bounds[one] : bounds[one + 1]]) for one in sorted(sources)]
        if sum(len(run) for _, run in runs) > FEW:
            return None
        rows = [np.zeros(0, np.int64)]
        for shard, run in runs:
            local = run.astype(np.int64)
            rows.append(local[shard.is_live(local)] + shard.first_row)
        return np.sort(np.concatenate(rows))

    def _rows_of(self, shard: Shard) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        if shard not in self._ordered:
            order = np.argsort(shard.source, kind="stable")
            numbers = np.arange(shard.n_sources + 1)
            bounds = np.searchsorted(shard.source, numbers, sorter=order)
            self._ordered[shard] = order.astype(np.uint32), bounds.astype(np.int64)
        return self._ordered[shard]
