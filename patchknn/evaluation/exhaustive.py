"""Nearest rows by L2 over all rows of a snapshot, with no first stage: the yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.positions import Excluded, Positions
from patchknn.hamming.feature_table import FeatureTable
from patchknn.search.filters import RowFilter
from patchknn.search.query import Query
from patchknn.search.ranking import nearest, place_in_group
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings

# Rows that may not answer cost a query about as much to find and to drop, each, as what another
# query leaves out costs it in smaller products.
_RUNS_PER_ROW = 1.0

Vectors = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """Global rows (m,) in rank order, m ≤ k, and their L2 distances (m,) float64."""

    rows: RowNumbers
    distances: npt.NDArray[np.float64]


class ExhaustiveSearch:
    """Searches one vector per row: the stored features, or others given as one array per shard
    that is searched.

    ``vectors`` are per shard (n, D); a row with a NaN in it cannot be found. Filters, and rows per
    slide or patient, are those of ``settings``, as in the two-stage search. Float16 and float32
    are searched by the kernels, on ``threads``.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: SearchSettings,
        vectors: Sequence[Vectors] | None = None,
        threads: int = 1,
    ) -> None:
        self._k = min(settings.k, len(snapshot) + 1)
        self._max_per = settings.max_per
        self._threads = threads
        self._reader = RowReader(snapshot)
        self._filter = RowFilter(snapshot, settings, self._reader)
        if vectors is None:
            vectors = [shard.features for shard in snapshot.searched]
        self._positions = Positions(snapshot, settings, self._filter, vectors)
        self._table = None
        if vectors:
            self._table = FeatureTable(vectors, rows=self._positions.rows)

    def search(self, queries: Sequence[Query], targets: Vectors) -> list[Found]:
        """The k nearest rows of each query; ``targets`` (q, D) are the queries' vectors.

        Products in float32 select with a margin that covers their rounding; distances and order
        are those of the float64 function that every search uses. Raises InputError as the
        two-stage search does where a filter needs what a query does not say.
        """
        excluded = self._positions.excluded(queries)
        found: dict[int, Found] = {}
        wanted, size = list(range(len(queries))), self._k
        while wanted:
            pools = self._nearest([excluded[n] for n in wanted], targets[wanted], size)
            for number, (rows, distances) in zip(wanted, pools, strict=True):
                chosen = nearest(distances, size, self._tie_keys(rows))
                kept = self._capped(rows, chosen)
                # Fewer than asked for are all that there are; else those passed over had places
                # that rows further away may take.
                if len(kept) == self._k or len(chosen) < size:
                    found[number] = Found(rows[kept], distances[kept])
            wanted = [number for number in wanted if number not in found]
            size *= 4
        return [found[number] for number in range(len(queries))]

    def _capped(self, rows: RowNumbers, ranked: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The first k of ``ranked`` positions whose slide or patient has a place left."""
        if self._max_per is None:
            return ranked[: self._k]
        kind, most = self._max_per
        groups = self._reader.groups(rows[ranked], kind, {})
        return ranked[place_in_group(groups) < most][: self._k]

    def _nearest(
        self, excluded: Sequence[Excluded], targets: Vectors, size: int
    ) -> list[tuple[RowNumbers, npt.NDArray[np.float64]]]:
        """Per query at least the ``size`` nearest rows, all ties included, and their distances."""
        if self._table is None:
            return [(np.zeros(0, np.int64), np.zeros(0))] * len(targets)
        n_admitted = self._positions.n_admitted
        runs = len({one.starts.tobytes() for one in excluded if one.n_rows})
        dropped = [one.n_rows <= _RUNS_PER_ROW * runs for one in excluded]
        sizes = [
            size + one.n_rows if drop else size for one, drop in zip(excluded, dropped, strict=True)
        ]
        every = (np.zeros(1, np.int64), np.array([n_admitted]))
        ranges = [
            every if drop else one.others(n_admitted)
            for one, drop in zip(excluded, dropped, strict=True)
        ]
        # Products of a block of rows serve all queries that want it: those that leave out the same
        # rows go one after the other.
        order = sorted(range(len(ranges)), key=lambda number: tuple(ranges[number][0].tolist()))
        starts = [ranges[number][0] for number in order]
        bounds, positions, distances = self._table.nearest_many(
            targets[order],
            np.cumsum([0, *map(len, starts)]),
            np.concatenate(starts),
            np.concatenate([ranges[number][1] for number in order]),
            np.array([sizes[number] for number in order], np.int64),
            threads=self._threads,
        )
        rows = self._positions.global_rows(positions)
        pools = [(np.zeros(0, np.int64), np.zeros(0))] * len(order)
        for number, (low, high) in zip(order, pairwise(bounds.tolist()), strict=True):
            own = slice(low, high)
            if dropped[number] and excluded[number].n_rows:
                kept = ~excluded[number].holds(positions[own])
                pools[number] = rows[own][kept], distances[own][kept]
            else:
                pools[number] = rows[own], distances[own]
        return pools

    def _tie_keys(self, rows: RowNumbers) -> Any:
        return lambda tied: self._reader.tie_keys(rows[tied])
