"""Nearest rows by L2 over all rows of a snapshot, with no first stage: the yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.hamming.exact import l2_distances
from patchknn.search.filters import QueryFilter, RowFilter
from patchknn.search.query import Query
from patchknn.search.ranking import nearest, place_in_group
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings

_CHUNK = 16384
_UNIT_ROUNDOFF = 2.0**-24

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
    slide or patient, are those of ``settings``, as in the two-stage search.
    """

    def __init__(
        self, snapshot: Snapshot, settings: SearchSettings, vectors: Sequence[Vectors] | None = None
    ) -> None:
        self._k = min(settings.k, len(snapshot) + 1)
        self._max_per = settings.max_per
        self._reader = RowReader(snapshot)
        self._filter = RowFilter(snapshot, settings, self._reader)
        if vectors is None:
            vectors = [shard.features for shard in snapshot.searched]
        pairs = zip(snapshot.searched, vectors, strict=True)
        self._vectors = {shard.first_row: values for shard, values in pairs}

    def search(self, queries: Sequence[Query], targets: Vectors) -> list[Found]:
        """The k nearest rows of each query; ``targets`` (q, D) are the queries' vectors.

        A matrix product in float32 selects with a margin that covers its rounding; distances and
        order are then computed by the float64 function that every search uses. Raises InputError
        as the two-stage search does where a filter needs what a query does not say.
        """
        filters = [self._filter.for_query(query) for query in queries]
        doubles = np.asarray(targets, np.float64)
        found: dict[int, Found] = {}
        wanted, size = list(range(len(queries))), self._k
        while wanted:
            pools = self._candidates([filters[n] for n in wanted], doubles[wanted], size)
            for number, rows in zip(wanted, pools, strict=True):
                distances = self._distances(rows, targets[number])
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

    def _candidates(
        self, filters: Sequence[QueryFilter], targets: npt.NDArray[np.float64], size: int
    ) -> list[RowNumbers]:
        """Per query rows that surely hold the ``size`` nearest."""
        count, dim = targets.shape
        single = targets.astype(np.float32)
        target_norm = np.square(targets).sum(axis=1)
        # Largest error of a squared distance made of norms and a product of float32 vectors.
        error = (2 * dim + 16) * _UNIT_ROUNDOFF
        best = np.full((count, size), np.inf)
        rows: list[list[RowNumbers]] = [[] for _ in range(count)]
        lows: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(count)]
        for first_row, vectors in self._vectors.items():
            for start in range(0, len(vectors), _CHUNK):
                block = np.asarray(vectors[start : start + _CHUNK], np.float32)
                norm = np.square(block, dtype=np.float64).sum(axis=1)
                numbers = np.arange(start, start + len(block), dtype=np.int64) + first_row
                readable = np.isfinite(norm)
                squared = target_norm[:, None] + norm - 2.0 * (single @ block.T)
                margin = error * np.square(np.sqrt(target_norm)[:, None] + np.sqrt(norm))
                for number, keep in enumerate(filters):
                    kept = keep(numbers[readable]) - numbers[0]
                    upper = squared[number, kept] + margin[number, kept]
                    both = np.concatenate([best[number], upper])
                    best[number] = np.partition(both, size - 1)[:size]
                    low = squared[number, kept] - margin[number, kept]
                    near = low <= best[number].max()
                    rows[number].append(numbers[kept[near]])
                    lows[number].append(low[near])
        nothing = np.zeros(0, np.int64)
        return [
            np.concatenate([nothing, *parts])[np.concatenate([np.zeros(0), *low]) <= bound.max()]
            for parts, low, bound in zip(rows, lows, best, strict=True)
        ]

    def _distances(self, rows: RowNumbers, target: Vectors) -> npt.NDArray[np.float64]:
        distances = np.empty(len(rows))
        for shard, positions, local in self._reader.by_shard(rows):
            vectors = self._vectors[shard.first_row]
            distances[positions] = l2_distances(vectors, target, local)
        return distances

    def _tie_keys(self, rows: RowNumbers) -> Any:
        return lambda tied: self._reader.tie_keys(rows[tied])
