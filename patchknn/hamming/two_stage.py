"""Both stages of one query at once: the ball of its code, and the ball's nearest rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.hamming.code_table import CodeTable
from patchknn.hamming.feature_table import FeatureTable, Float64, Int64, RowsWork
from patchknn.hamming.kernels import extension


class TwoStageAnswer(NamedTuple):
    """What the ball of a query holds.

    n_rows: rows in the ball. positions (c,) int64 and distances (c,) float64 as
    ``FeatureTable.nearest`` gives them, both None where the ball holds fewer than k rows. path,
    lookups, candidates, scanned as ``Hits.work``; rows as ``FeatureTable.nearest``.
    """

    n_rows: int
    positions: Int64 | None
    distances: Float64 | None
    path: int
    lookups: int
    candidates: int
    scanned: int
    rows: RowsWork


class TwoStage:
    """The codes and the features of one segment, searched together."""

    def __init__(self, codes: CodeTable, features: FeatureTable) -> None:
        """Over tables of the same rows; ValueError where they are not."""
        if codes.n_positions != features.n_rows:
            message = f"codes of {codes.n_positions} rows, features of {features.n_rows}"
            raise ValueError(message)
        self._codes = codes
        self._features = features
        kernels: Any = extension()
        both = kernels is not None and features.kernel is not None
        self._fused = both and isinstance(codes.kernel, kernels.CodeTable)
        self._kernels = kernels

    def search(
        self,
        words: npt.NDArray[np.uint64],
        query: npt.NDArray[Any],
        radius: int,
        k: int,
        skip: Int64 | None = None,
        *,
        least: int | None = None,
    ) -> TwoStageAnswer:
        """The nearest rows to ``query`` (D,) within ``radius`` bits of the code ``words`` (W,).

        They are ranked where the ball holds at least ``least`` rows (default: k).
        ``skip`` (s,) int64, ascending, are segment rows to be left out, as if they were not there.
        Raises ValueError where shapes do not fit, for a query that is not finite, and where an
        index array turns out to hold a value out of range.
        """
        target = np.ascontiguousarray(query, np.float64)
        code = np.ascontiguousarray(words, np.uint64)
        least = k if least is None else least
        if skip is not None:
            skip = np.ascontiguousarray(skip, np.int64)
        if not self._fused:
            return self._in_turn(code, target, radius, k, skip, least)
        n_rows, found, path, lookups, candidates, scanned = self._kernels.two_stage(
            self._codes.kernel, self._features.kernel, code, target, radius, k, least, skip
        )
        positions = distances = None
        work = RowsWork(0, 0)
        if found is not None:
            positions = np.frombuffer(found[0], np.int64)
            distances = np.frombuffer(found[1], np.float64)
            work = RowsWork(found[2], found[3])
        return TwoStageAnswer(
            n_rows, positions, distances, path, lookups, candidates, scanned, work
        )

    def _in_turn(  # noqa: PLR0917
        self,
        code: npt.NDArray[np.uint64],
        target: Float64,
        radius: int,
        k: int,
        skip: Int64 | None,
        least: int,
    ) -> TwoStageAnswer:
        hits = self._codes.ball(code[None], radius)
        found = np.sort(hits.codes)
        bounds = self._codes.arrays.bounds
        starts, stops = bounds[found].astype(np.int64), bounds[found + 1].astype(np.int64)
        overlapping = (starts[1:] < stops[:-1]).any()
        if overlapping or (starts > stops).any() or (stops > self._features.n_rows).any():
            message = "the segment's bounds hold a number out of range"
            raise ValueError(message)
        if skip is not None and len(skip):
            starts, stops = self._without(starts, stops, skip)
        n_rows = int((stops - starts).sum())
        path, lookups, candidates, scanned = hits.work[0].tolist()
        positions = distances = None
        work = RowsWork(0, 0)
        if n_rows >= least:
            positions, distances, work = self._features.nearest(target, starts, stops, k)
        return TwoStageAnswer(
            n_rows, positions, distances, path, lookups, candidates, scanned, work
        )

    def _without(self, starts: Int64, stops: Int64, skip: Int64) -> tuple[Int64, Int64]:
        rows = self._features.rows
        cut = []
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            own = np.arange(start, stop) if rows is None else rows[start:stop]
            cut.append(start + np.flatnonzero(np.isin(own, skip)))
        left_out = np.concatenate([np.empty(0, np.int64), *cut])
        first = np.sort(np.concatenate([starts, left_out + 1]))
        last = np.sort(np.concatenate([stops, left_out]))
        return first[first < last], last[first < last]
