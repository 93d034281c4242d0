"""The paper's baseline coarse stage: L2 on hash vectors before the sign (paper A, section 3.3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.hamming.exact import l2_distances
from patchknn.search.pool import Demand, Pool
from patchknn.search.ranking import ranked_prefix
from patchknn.search.rows import RowReader

_CHUNK = 4096

Vectors = npt.NDArray[np.float32]


def hash_vectors(bundle: Bundle, features: npt.NDArray[np.generic]) -> Vectors:
    """Features (n, D) → hash vectors (n, K), rounded to float32.

    Rounding makes equal features tie: a matrix product's last bits hang on the rows around them.
    """
    vectors = np.empty((len(features), bundle.description.bits), np.float32)
    for start in range(0, len(features), _CHUNK):
        block = slice(start, start + _CHUNK)
        vectors[block] = bundle.hash_vectors(features[block])
    return vectors


def snapshot_hash_vectors(snapshot: Snapshot, bundle: Bundle) -> Vectors:
    """The hash vectors of every row, (n, K) float32, in memory: 4 K bytes a row."""
    parts = [hash_vectors(bundle, shard.features) for shard in snapshot.shards]
    empty = np.empty((0, bundle.description.bits), np.float32)
    return np.concatenate([empty, *parts])


class L2Stage:
    """Finds candidates by comparing a query's hash vector with those of all rows."""

    def __init__(self, snapshot: Snapshot, bundle: Bundle, reader: RowReader) -> None:
        self._vectors = snapshot_hash_vectors(snapshot, bundle)
        self._rows = np.arange(len(self._vectors), dtype=np.int64)
        self._reader = reader

    def find(self, vector: Vectors, candidates: int, demand: Demand) -> Pool:
        """The nearest ``candidates`` rows that ``demand`` admits, by L2 to ``vector`` (K,).

        Equal distances are ordered as in the second stage. Where these rows do not yield k, the
        pool is the shortest longer part of the same ranking that does.
        """
        rows = self._rows[demand.admits(self._rows)]
        distances = l2_distances(self._vectors, vector, rows)
        size = min(candidates, len(rows))
        while True:
            order = ranked_prefix(distances, size, lambda tied: self._reader.tie_keys(rows[tied]))
            ranked = rows[order]
            length = demand.pool_length(ranked, candidates)
            if length is not None or len(ranked) == len(rows):
                pool = ranked[:length]
                return Pool(pool, widened=len(pool) > candidates)
            size = min(4 * size, len(rows))
