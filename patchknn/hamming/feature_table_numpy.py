"""The rows of a table of features by NumPy: where there are no kernels, and for a few rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.hamming.exact import l2_distances

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_CHUNK_BYTES = 4 << 20


class NumpyRows:
    """Rows of several arrays by position, as ``FeatureTable`` describes them."""

    def __init__(
        self, arrays: Sequence[npt.NDArray[Any]], rows: npt.NDArray[np.uint32] | None
    ) -> None:
        self._arrays = arrays
        self._rows = rows
        self._first_rows = np.cumsum([0] + [len(array) for array in arrays])
        self.n_rows = int(self._first_rows[-1])

    def take(self, positions: Int64) -> Float64:
        """Features (m, D) at positions (m,); ValueError where a row is out of range."""
        found = np.empty((len(positions), self._arrays[0].shape[1]), np.float64)
        for shard, own, rows in self._by_shard(positions):
            found[own] = self._arrays[shard][rows]
        return found

    def nearest(
        self, target: Float64, starts: Int64, stops: Int64, k: int
    ) -> tuple[Int64, Float64]:
        """Positions and distances, as ``FeatureTable.nearest`` gives them."""
        if not np.isfinite(target).all():
            message = "the query holds a NaN or an infinity"
            raise ValueError(message)
        positions, distances = np.empty(0, np.int64), np.empty(0, np.float64)
        if k < 1:
            return positions, distances
        for chunk in self._chunks(starts, stops):
            more = np.empty(len(chunk), np.float64)
            for shard, own, rows in self._by_shard(chunk):
                more[own] = l2_distances(self._arrays[shard], target, rows)
            positions = np.concatenate([positions, chunk])
            distances = np.concatenate([distances, more])
            if len(positions) > k:
                near = distances <= np.partition(distances, k - 1)[k - 1]
                positions, distances = positions[near], distances[near]
        order = np.lexsort((positions, distances))
        return positions[order], distances[order]

    def _chunks(self, starts: Int64, stops: Int64) -> Iterator[Int64]:
        step = max(1, _CHUNK_BYTES // (8 * self._arrays[0].shape[1]))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            for first in range(start, stop, step):
                yield np.arange(first, min(first + step, stop))

    def _by_shard(self, positions: Int64) -> Iterator[tuple[int, Int64, Int64]]:
        """Shard, which of ``positions`` lie in it, and their rows there."""
        rows = positions if self._rows is None else self._rows[positions].astype(np.int64)
        if len(rows) and int(rows.max()) >= self.n_rows:
            message = "the segment's rows hold a number out of range"
            raise ValueError(message)
        shards = np.searchsorted(self._first_rows, rows, side="right") - 1
        for shard in np.unique(shards).tolist():
            own = np.flatnonzero(shards == shard)
            yield shard, own, rows[own] - self._first_rows[shard]
