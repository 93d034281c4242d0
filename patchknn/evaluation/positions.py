"""Rows put in an order in which what may not answer a query is a run or two of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.search.filters import OwnSources, RowFilter
from patchknn.search.groups import GroupNumbers
from patchknn.search.query import Query
from patchknn.search.rows import RowNumbers
from patchknn.search.settings import SearchSettings

_CHUNK = 16384
_HALF_EXPONENT = 0x7C00  # all ones in a float16 that is NaN or infinite

Int64 = npt.NDArray[np.int64]


class Excluded(NamedTuple):
    """Disjoint runs ``starts`` to ``stops`` (m,) of positions, ascending, of ``n_rows``."""

    starts: Int64
    stops: Int64
    n_rows: int

    def others(self, n_positions: int) -> tuple[Int64, Int64]:
        """The runs of the positions below ``n_positions`` that are not in these."""
        return np.append(0, self.stops), np.append(self.starts, n_positions)

    def holds(self, positions: Int64) -> npt.NDArray[np.bool_]:
        """Whether each of positions (m,) is in one of the runs."""
        runs = np.searchsorted(self.starts, positions, side="right") - 1
        inside: npt.NDArray[np.bool_] = (runs >= 0) & (positions < self.stops[runs])
        return inside


class Positions:
    """The rows of the shards that are searched, source by source, patients together.

    Those that may answer at all come first: ``n_admitted``, being there, passing the filters that
    hang on no query, and having a vector without NaN among ``vectors``, one array (n, D) a shard.
    ``rows`` (n,) uint32 are the places of all of them in the shards, one after the other.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: SearchSettings,
        row_filter: RowFilter,
        vectors: Sequence[npt.NDArray[Any]],
    ) -> None:
        self._settings = settings
        self._filter = row_filter
        self._shards = list(snapshot.searched)
        lengths = np.array([shard.n for shard in self._shards], np.int64)
        self._before = np.append(0, np.cumsum(lengths))
        self._first_rows = np.array([shard.first_row for shard in self._shards], np.int64)
        keys = self._keys()
        n_keys = max((int(key.max()) + 1 for key in keys.values() if len(key)), default=0)
        of_rows = [np.zeros(0, np.int64)]
        for shard, values in zip(self._shards, vectors, strict=True):
            key = keys[shard][shard.source]
            numbers = np.arange(shard.n, dtype=np.int64) + shard.first_row
            # What never answers lies behind all that may.
            key[~(row_filter.admits(numbers) & _finite(values))] = n_keys
            of_rows.append(key)
        key = np.concatenate(of_rows)
        order = np.argsort(key, kind="stable")
        self.rows = order.astype(np.uint32)
        # Run i, of the source of key i, is bounds[i] to bounds[i + 1].
        self._bounds = np.searchsorted(key[order], np.arange(n_keys + 1))
        self.n_admitted = int(self._bounds[n_keys])
        self._source_keys = keys

    def global_rows(self, positions: Int64) -> RowNumbers:
        """The numbers in the snapshot of the rows at positions (m,)."""
        places = self.rows[positions].astype(np.int64)
        shards = np.searchsorted(self._before, places, side="right") - 1
        rows: RowNumbers = places - self._before[shards] + self._first_rows[shards]
        return rows

    def excluded(self, queries: Sequence[Query]) -> list[Excluded]:
        """What may not answer each query though it may answer others.

        Raises InputError as ``RowFilter.check``.
        """
        for query in queries:
            self._filter.check(query)
        owns = self._filter.own_sources(queries)
        return [self._runs(query, own) for query, own in zip(queries, owns, strict=True)]

    def _runs(self, query: Query, own: OwnSources) -> Excluded:
        runs = [
            (int(self._bounds[key]), int(self._bounds[key + 1]))
            for shard, sources in own.items()
            for key in self._source_keys[shard][sorted(sources)].tolist()
        ]
        if self._settings.exclude_same == "self":
            runs = [(place, place + 1) for run in runs for place in self._own_patches(query, run)]
        starts: list[int] = []
        stops: list[int] = []
        for start, stop in sorted(runs):
            if start == stop:
                continue
            if stops and stops[-1] == start:
                stops[-1] = stop
            else:
                starts.append(start)
                stops.append(stop)
        n_rows = sum(stops) - sum(starts)
        return Excluded(np.array(starts, np.int64), np.array(stops, np.int64), n_rows)

    def _own_patches(self, query: Query, run: tuple[int, int]) -> list[int]:
        """Positions of the query's own patch in the run of one source."""
        if run[0] == run[1]:
            return []
        places = self.rows[slice(*run)].astype(np.int64)
        shard = int(np.searchsorted(self._before, places[0], side="right")) - 1
        coords = self._shards[shard].coords[places - self._before[shard]]
        same = (coords == (query.x, query.y)).all(axis=1)
        own: list[int] = (np.flatnonzero(same) + run[0]).tolist()
        return own

    def _keys(self) -> dict[Shard, Int64]:
        """A number (S,) for each source of each shard, those of one patient one after the other."""
        counts = [shard.n_sources for shard in self._shards]
        total = sum(counts)
        groups = np.zeros(total, np.int64)
        if self._settings.exclude_same == "patient":
            known = GroupNumbers()
            parts = [
                known.of(shard, np.arange(shard.n_sources, dtype=np.int32), "patient")
                for shard in self._shards
            ]
            groups = np.concatenate([np.zeros(0, np.int64), *parts])
        keys = np.empty(total, np.int64)
        keys[np.argsort(groups, kind="stable")] = np.arange(total)
        ends = np.cumsum(counts)[:-1]
        return dict(zip(self._shards, np.split(keys, ends), strict=True))


def _finite(vectors: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each of vectors (n, D) is without NaN or infinity, looked at a few at a time."""
    finite = np.ones(len(vectors), bool)
    for start in range(0, len(vectors), _CHUNK):
        block = vectors[start : start + _CHUNK]
        if block.dtype == np.float16:  # NumPy takes many times as long to see it of these
            fits = (block.view(np.uint16) & _HALF_EXPONENT) < _HALF_EXPONENT
        else:
            fits = np.isfinite(block)
        finite[start : start + _CHUNK] = fits.all(axis=1)
    return finite
