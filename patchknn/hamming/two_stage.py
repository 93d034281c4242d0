"""Both stages of one query at once: the ball of its code, and the ball's nearest rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy import frombuffer

from patchknn.hamming.code_table import CodeTable
from patchknn.hamming.feature_table import FeatureTable, Float64, Int64, RowsWork
from patchknn.hamming.kernels import extension
from patchknn.hamming.packing import words_of
from patchknn.hamming.threads import even_ranges, share_out

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
_FLOATS = frozenset(map(np.dtype, (np.float16, np.float32, np.float64)))
_NOTHING = np.zeros(0, np.int64)
_FACTS = 8  # numbers that the kernels tell of a query: rows, matches and the six of its work
_LEAST_SHARE = 16  # queries that are worth a thread's turn


class TwoStageAnswer(NamedTuple):
    """What the ball of a query holds.

    n_rows: rows in the ball. rows (c,) int64 of the segment and distances (c,) float64 as
    ``FeatureTable.nearest`` gives them, both None where the ball holds fewer than k rows. work: the
    four numbers of ``Hits.work``, then the two of ``RowsWork``.
    """

    n_rows: int
    rows: Int64 | None
    distances: Float64 | None
    work: tuple[int, int, int, int, int, int]


class TwoStageAnswers(NamedTuple):
    """The same of Q queries: those of query q from offsets[q] to offsets[q + 1].

    n_rows (Q,) int64; ranked (Q,) bool: false where the ball holds too few or too many rows;
    offsets (Q + 1,) int64; rows (T,) int64; distances (T,) float64; work (Q, 6) int64.
    """

    n_rows: Int64
    ranked: npt.NDArray[np.bool_]
    offsets: Int64
    rows: Int64
    distances: Float64
    work: Int64


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
        code: npt.NDArray[np.uint8],
        query: npt.NDArray[Any],
        radius: int,
        k: int,
        skip: Int64 | None = None,
        *,
        least: int | None = None,
    ) -> TwoStageAnswer:
        """The nearest rows to ``query`` (D,) within ``radius`` bits of ``code`` (K/8,).

        They are ranked where the ball holds at least ``least`` rows (default: k).
        ``skip`` (s,) int64, ascending, are segment rows to be left out, as if they were not there.
        Raises ValueError where shapes do not fit, for a query that is not finite, and where an
        index array turns out to hold a value out of range.
        """
        target = _as_floats(query)
        least = k if least is None else least
        if skip is not None:
            skip = np.ascontiguousarray(skip, np.int64)
        if not self._fused:
            return self._in_turn(words_of(code), target, radius, k, skip, least)
        n_rows, found, *work = self._kernels.two_stage(
            self._codes.kernel, self._features.kernel, code, target, radius, k, least, skip
        )
        if found is None:
            return TwoStageAnswer(n_rows, None, None, (*work, 0, 0))
        rows, distances, read, skipped = found
        return TwoStageAnswer(
            n_rows,
            frombuffer(rows, _INT64),
            frombuffer(distances, _FLOAT64),
            (*work, read, skipped),
        )

    def search_many(
        self,
        words: npt.NDArray[np.uint64],
        queries: npt.NDArray[Any],
        radius: int,
        k: int,
        skips: Sequence[Int64] | None,
        *,
        least: int,
        most: int,
        threads: int = 1,
    ) -> TwoStageAnswers:
        """What ``search`` gives for each of ``queries`` (Q, D) and codes ``words`` (Q, W).

        ``skips``: for each query the segment rows (s,) that are left out, ascending; None: none.
        Balls of fewer than ``least`` or more than ``most`` rows are not ranked. Raises as
        ``search`` does.
        """
        targets = _as_floats(queries)
        codes = np.ascontiguousarray(words, np.uint64)

        def answer(span: tuple[int, int]) -> tuple[Int64, Int64, Float64]:
            some = slice(*span)
            own = None if skips is None else skips[some]
            if not self._fused:
                return self._each(codes[some], targets[some], radius, k, own, least, most)
            ends = left_out = None
            if own is not None:
                ends = np.cumsum([len(skip) for skip in own], dtype=np.int64)
                left_out = np.concatenate([_NOTHING, *own])
            facts, found = self._kernels.two_stage_many(
                *(self._codes.kernel, self._features.kernel, codes[some], targets[some]),
                *(radius, k, least, most, ends, left_out),
            )
            return (
                frombuffer(facts, _INT64).reshape(-1, _FACTS),
                frombuffer(found[0], _INT64),
                frombuffer(found[1], _FLOAT64),
            )

        shares = max(1, min(4 * threads if threads > 1 else 1, len(codes) // _LEAST_SHARE))
        blocks = share_out(threads, answer, even_ranges(len(codes), shares))
        facts = np.concatenate([block[0] for block in blocks])
        return TwoStageAnswers(
            facts[:, 0],
            facts[:, 1] >= 0,
            np.concatenate([[0], np.cumsum(facts[:, 1].clip(0))]),
            np.concatenate([block[1] for block in blocks]),
            np.concatenate([block[2] for block in blocks]),
            facts[:, 2:],
        )

    def _each(  # noqa: PLR0917
        self,
        words: npt.NDArray[np.uint64],
        targets: npt.NDArray[Any],
        radius: int,
        k: int,
        skips: Sequence[Int64] | None,
        least: int,
        most: int,
    ) -> tuple[Int64, Int64, Float64]:
        """What the kernels give of many queries, one after the other."""
        facts, rows, distances = [], [_NOTHING], [np.zeros(0)]
        every = [None] * len(words) if skips is None else skips
        for word, target, skip in zip(words, targets, every, strict=True):
            one = self._in_turn(word, target, radius, k, skip, least, most)
            found = -1
            if one.rows is not None and one.distances is not None:
                found = len(one.rows)
                rows.append(one.rows)
                distances.append(one.distances)
            facts.append([one.n_rows, found, *one.work])
        table = np.array(facts, np.int64).reshape(-1, _FACTS)
        return table, np.concatenate(rows), np.concatenate(distances)

    def _in_turn(  # noqa: PLR0917
        self,
        code: npt.NDArray[np.uint64],
        target: npt.NDArray[Any],
        radius: int,
        k: int,
        skip: Int64 | None,
        least: int,
        most: float = np.inf,
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
        rows = distances = None
        work = RowsWork(0, 0)
        if least <= n_rows <= most:
            rows, distances, work = self._features.nearest(target, starts, stops, k)
            if self._features.rows is not None:
                rows = self._features.rows[rows].astype(np.int64)
        return TwoStageAnswer(n_rows, rows, distances, (*hits.work[0].tolist(), *work))

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


def _as_floats(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As the kernels take them: float16, float32 or float64, in one piece."""
    if values.dtype not in _FLOATS:
        values = values.astype(_FLOAT64)
    return values if values.flags.c_contiguous else np.ascontiguousarray(values)
