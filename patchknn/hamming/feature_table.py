"""The features of a segment's rows, and which of a ball's rows are the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.hamming.exact import in_place
from patchknn.hamming.feature_batch import rank_many
from patchknn.hamming.feature_table_numpy import NumpyRows
from patchknn.hamming.kernels import extension
from patchknn.hamming.overlaps import Ranges
from patchknn.hamming.pace import Pace
from patchknn.hamming.sketch import Sketch
from patchknn.hamming.threads import clipped, share_out

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_BATCH_BYTES = 64 << 20  # of queries
_LEAST_TOGETHER = 256
_WORTH_SHARING = 8 << 20  # bytes that take longer to read than threads take to start


class RowsWork(NamedTuple):
    """What a query read: rows of features, and rows that their sketches left unread."""

    rows_read: int
    rows_skipped: int


class FeatureTable:
    """Features of the shards of a segment, read in place; positions as the segment orders them."""

    def __init__(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        *,
        rows: npt.NDArray[np.uint32] | None = None,
        sketch: Sketch | None = None,
    ) -> None:
        """Over ``arrays``, one (n_s, D) float16 or float32 per shard, in the segment's order.

        ``rows`` (n,) uint32 maps positions to segment rows (None: they are the same); it is
        checked when it is read. ``sketch`` is by position. Nothing is read or copied here.
        Raises ValueError where shapes or dtypes do not fit.
        """
        self._arrays = list(arrays)
        if not self._arrays:
            message = "a table of features needs at least one array"
            raise ValueError(message)
        first = self._arrays[0]
        for array in self._arrays:
            if array.ndim != 2 or array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
                message = f"features {array.shape} {array.dtype} beside {first.shape} {first.dtype}"
                raise ValueError(message)
        self._numpy = NumpyRows(self._arrays, rows)
        self.n_rows = self._numpy.n_rows
        self.dim = int(first.shape[1])
        if rows is not None and (rows.shape != (self.n_rows,) or rows.dtype != np.uint32):
            message = f"rows of shape {rows.shape} {rows.dtype} for {self.n_rows} rows of features"
            raise ValueError(message)
        if sketch is not None and len(sketch.values) != self.n_rows:
            message = f"a sketch of {len(sketch.values)} rows for {self.n_rows} rows of features"
            raise ValueError(message)
        self.rows = rows
        self._pace = Pace()
        self._row_bytes = self.dim * first.dtype.itemsize
        self.kernel: Any = None  # the C table, where it serves
        self._kernels: Any = extension()
        if self._kernels is not None and all(in_place(array) for array in self._arrays):
            self.kernel = self._kernels.FeatureTable(
                self._arrays,
                self.dim,
                first.dtype.itemsize == 2,
                rows,
                None if sketch is None else _held(sketch),
            )
            self._has_sketch = sketch is not None

    def nearest(
        self,
        query: npt.NDArray[Any],
        starts: npt.NDArray[Any],
        stops: npt.NDArray[Any],
        k: int,
        *,
        threads: int = 1,
    ) -> tuple[Int64, Float64, RowsWork]:
        """Every row at most as far from ``query`` (D,) as the k-th nearest, all ties included.

        Of the disjoint ranges ``starts`` to ``stops`` (m,) of positions; fewer than k where there
        are fewer. Positions (c,) int64 and their distances (c,) float64 as ``l2_distances`` gives
        them, ascending, ties by position. Raises ValueError for ranges outside the table, for a
        query that is not finite, and where ``rows`` holds a number out of range.
        """
        target = np.ascontiguousarray(query, np.float64)
        first = np.ascontiguousarray(starts, np.int64)
        last = np.ascontiguousarray(stops, np.int64)
        if target.shape != (self.dim,):
            message = f"a query of shape {target.shape} does not fit features of {self.dim} values"
            raise ValueError(message)
        threads, n_bytes = clipped(threads), 0
        if threads > 1:
            self._check(first, last)
            n_bytes = int((last - first).sum()) * self._row_bytes
        if n_bytes < _WORTH_SHARING:
            return self._nearest(target, first, last, k)
        began, share = perf_counter(), self._pace.share()
        if share:
            answers = share_out(
                threads,
                lambda part: self._nearest(target, part[0], part[1], k),
                shared(first, last, threads),
            )
            answer = merged(answers, k)
        else:
            answer = self._nearest(target, first, last, k)
        self._pace.took(perf_counter() - began, n_bytes, shared=share)
        return answer

    def _nearest(
        self, target: Float64, starts: Int64, stops: Int64, k: int
    ) -> tuple[Int64, Float64, RowsWork]:
        if self.kernel is None:
            self._check(starts, stops)
            found = self._numpy.nearest(target, starts, stops, k)
            return *found, RowsWork(int((stops - starts).sum()) if k > 0 else 0, 0)
        positions, distances, read, skipped = self.kernel.nearest(
            target, starts, stops, max(0, min(k, self.n_rows)), self._has_sketch
        )
        return (
            np.frombuffer(positions, np.int64),
            np.frombuffer(distances, np.float64),
            RowsWork(read, skipped),
        )

    def nearest_many(
        self,
        queries: npt.NDArray[Any],
        offsets: npt.NDArray[Any],
        starts: npt.NDArray[Any],
        stops: npt.NDArray[Any],
        k: int | npt.NDArray[Any],
        *,
        threads: int = 1,
        work: Int64 | None = None,
    ) -> tuple[Int64, Int64, Float64]:
        """``nearest`` for each of ``queries`` (Q, D): offsets (Q + 1,), positions, distances.

        The ranges of query i are ``offsets[i]`` to ``offsets[i + 1]`` of ``starts`` and
        ``stops``; ``k`` is one number or one for each. Answers lie one after the other. ``work``
        (Q, 2) int64 takes the rows that each query read and skipped, as RowsWork has them.
        """
        counts = np.ascontiguousarray(np.broadcast_to(np.asarray(k, np.int64), len(queries)))
        ranges = Ranges(
            np.ascontiguousarray(offsets, np.int64),
            np.ascontiguousarray(starts, np.int64),
            np.ascontiguousarray(stops, np.int64),
        )
        found: list[list[Any]] = [
            [np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)]
        ]
        step = max(_LEAST_TOGETHER, _BATCH_BYTES // (8 * self.dim))
        for first in range(0, len(queries), step):
            some = slice(first, min(first + step, len(queries)))
            *answer, spent = self._nearest_block(
                queries[some], ranges.of(some), counts[some], clipped(threads)
            )
            found.append(answer)
            if work is not None:
                work[some] = spent
        lengths = np.concatenate([np.diff(part[0]) for part in found])
        return (
            np.append(0, np.cumsum(lengths)),
            np.concatenate([part[1] for part in found]),
            np.concatenate([part[2] for part in found]),
        )

    def _nearest_block(
        self, queries: npt.NDArray[Any], ranges: Ranges, counts: Int64, threads: int
    ) -> tuple[Int64, Int64, Float64, Int64]:
        targets = np.ascontiguousarray(queries, np.float64)
        if targets.shape[1:] != (self.dim,):
            message = f"queries of shape {targets.shape} do not fit features of {self.dim} values"
            raise ValueError(message)
        self._check(ranges.starts, ranges.stops)
        # Lists grow with k; there is no use for more room than the ranges have rows.
        counts = np.minimum(counts, np.diff(ranges.rows_before()))
        if self.kernel is not None:
            batch = self._kernels.RowBatch(self.kernel, targets, counts, threads)
            return rank_many(batch, self._numpy.take, targets, ranges, threads)
        answers = [
            self._numpy.nearest(target, ranges.starts[low:high], ranges.stops[low:high], k)
            for target, (low, high), k in zip(
                targets, pairwise(ranges.offsets.tolist()), counts.tolist(), strict=True
            )
        ]
        return (
            np.append(0, np.cumsum([len(answer[0]) for answer in answers])),
            np.concatenate([answer[0] for answer in answers]),
            np.concatenate([answer[1] for answer in answers]),
            np.stack([np.diff(ranges.rows_before()) * (counts > 0), np.zeros_like(counts)], axis=1),
        )

    def _check(self, starts: Int64, stops: Int64) -> None:
        if starts.shape != stops.shape or starts.ndim != 1:
            message = f"ranges of shapes {starts.shape} and {stops.shape} do not fit"
            raise ValueError(message)
        if not ((starts >= 0) & (starts <= stops) & (stops <= self.n_rows)).all():
            message = f"positions outside the table, which has {self.n_rows}"
            raise ValueError(message)


def shared(starts: Int64, stops: Int64, parts: int) -> list[tuple[Int64, Int64]]:
    """Ranges ``starts`` to ``stops`` cut into at most ``parts`` with nearly equally many rows."""
    before = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(stops - starts, out=before[1:])
    edges = np.linspace(0, before[-1], parts + 1).astype(np.int64)
    cut = []
    for low, high in pairwise(edges.tolist()):
        first = np.maximum(starts, starts + (low - before[:-1]))
        last = np.minimum(stops, starts + (high - before[:-1]))
        own = first < last
        if own.any():
            cut.append((first[own], last[own]))
    return cut or [(starts, stops)]


def merged(
    answers: Sequence[tuple[Int64, Float64, RowsWork]], k: int
) -> tuple[Int64, Float64, RowsWork]:
    """The answer over disjoint ranges from the answers over each of them."""
    positions = np.concatenate([answer[0] for answer in answers])
    distances = np.concatenate([answer[1] for answer in answers])
    order = np.lexsort((positions, distances))
    positions, distances = positions[order], distances[order]
    if 0 < k < len(distances):
        kept = int(np.searchsorted(distances, distances[k - 1], side="right"))
        positions, distances = positions[:kept], distances[:kept]
    work = RowsWork(*(sum(answer[2][i] for answer in answers) for i in range(2)))
    return positions, distances, work


def _held(sketch: Sketch) -> tuple[npt.NDArray[Any], Float64, Float64, float, float]:
    projection = sketch.projection
    return (
        np.ascontiguousarray(sketch.values),
        np.ascontiguousarray(projection.mean, np.float64),
        np.ascontiguousarray(projection.matrix, np.float64),
        float(projection.scale),
        float(sketch.slack),
    )
