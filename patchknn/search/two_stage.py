"""Both stages on arrays: the ball of each query, then its nearest rows by L2."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.hamming.two_stage import TwoStageAnswer
from patchknn.search.ball import Ball, find_ball, total_work, widened_balls
from patchknn.search.found import Found, FoundMany
from patchknn.search.parts import (
    Codes,
    DamagedPartError,
    Part,
    Ranges,
    ScanPart,
    SegmentPart,
    parts_of,
)
from patchknn.search.pool import Demand
from patchknn.search.query import all_finite
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settling import all_settled, settled
from patchknn.search.work import Work

Features = npt.NDArray[Any]
_MOST_AT_ONCE = 4096  # rows of a ball; many queries read what larger ones share only once
_NO_ROWS = np.zeros(0, np.int64)
_SHARED_ROWS = 4096  # which take longer to read than threads take to start


class TwoStage:
    """The Hamming ball and its ranking over one snapshot.

    An index segment that turns out damaged is passed over and its shards are scanned instead; the
    snapshot's cover then says so.
    """

    def __init__(
        self, snapshot: Snapshot, reader: RowReader, radius: int, widest: int, threads: int
    ) -> None:
        self._take(parts_of(snapshot))
        self._snapshot = snapshot
        self._reader = reader
        self._radii = (radius, widest)
        self._threads = threads
        self._last_read = 0

    @property
    def n_segments(self) -> int:
        """How many index segments are searched."""
        return sum(isinstance(part, SegmentPart) for part in self.parts)

    @property
    def n_bare_shards(self) -> int:
        """How many shards are scanned, for want of an index."""
        return sum(len(part.shards) for part in self.parts if isinstance(part, ScanPart))

    def find(self, feature: Features, code: Codes, demand: Demand) -> Found:
        """The answer of one query: its features (D,) in the archive's dtype, its code (K/8,).

        Raises ValueError where features are not finite.
        """
        while True:
            try:
                return self._find(feature, code, demand)
            except DamagedPartError as error:
                self.leave(error)

    def find_many(self, features: Features, codes: Codes, demands: Sequence[Demand]) -> FoundMany:
        """The answers of Q queries: features (Q, D), codes (Q, K/8); as ``find`` gives them."""
        while True:
            try:
                return self._find_many(features, codes, demands)
            except DamagedPartError as error:
                self.leave(error)

    def at(self, radius: int) -> TwoStage:
        """The same search, of balls of ``radius`` bits that are not widened."""
        other = copy(self)
        other._radii = (radius, radius)
        return other

    def leave(self, error: DamagedPartError) -> None:
        """Search on without the part that was found damaged; ``parts`` are those that are left."""
        self._snapshot.pass_over(error.part.segment, error)
        self._take(parts_of(self._snapshot))

    def _take(self, parts: list[Part]) -> None:
        self.parts = parts
        segments = [part for part in parts if isinstance(part, SegmentPart)]
        # None where they do not hold all rows.
        self._segments = segments if segments and len(segments) == len(parts) else None

    def _find(self, feature: Features, code: Codes, demand: Demand) -> Found:
        found = self._found_at_once(feature, code, demand)
        if found is not None:
            return found
        if not all_finite(feature):
            message = "the query holds a NaN or an infinity"
            raise ValueError(message)
        demand = self._looking(demand)
        ball = find_ball(self.parts, code, self._radii, demand, self._threads)
        found = self._ranked(ball, feature, demand)
        self._last_read = found.work.read
        return found

    def _found_at_once(self, feature: Features, code: Codes, demand: Demand) -> Found | None:
        """The answer of one call per segment for both stages, None where there is no such thing.

        That is: no shard without an index, no filter but known rows, a ball that suffices. Several
        threads, where there are, help as long as the last query read many rows.
        """
        parts = self._segments
        if parts is None or demand.skip is None or demand.groups is not None:
            return None
        many = self._threads > 1 and self._last_read > _SHARED_ROWS
        if many and not self._snapshot.has_removed:
            return None
        radius, widest = self._radii
        k = demand.k
        least = 0 if widest <= radius else k
        alone = least if len(parts) == 1 else 0  # together they may hold enough
        answers = [part.search(code, feature, radius, k, demand.skip, alone) for part in parts]
        answer = answers[0] if len(answers) == 1 else _nearest_of(answers, k)
        rows, distances = answer.rows, answer.distances
        if rows is None or distances is None or answer.n_rows < least:
            return None
        if len(rows) > k or len(set(distances.tolist())) < len(rows):  # ties
            rows, distances = settled(rows, distances, k, self._reader)
        work = Work._make(answer.work)
        self._last_read = work.read
        return Found(rows, distances, radius, answer.n_rows, widened=False, work=work)

    def _looking(self, demand: Demand) -> Demand:
        """The demand where rows may have been removed: each is looked at, none only counted."""
        return demand._replace(skip=None) if self._snapshot.has_removed else demand

    def _ranked(self, ball: Ball, feature: Features, demand: Demand) -> Found:
        size = _size(demand)
        if not ball.suffices:  # every group gives what it has
            size = max(size, sum(ranges.n_rows for ranges in ball.ranges))
        while True:
            rows, distances, work, complete_to = self._candidates(ball, feature, size)
            if demand.groups is not None:  # rows passed over let in what lies behind them
                known = distances <= complete_to
                rows, distances = rows[known], distances[known]
            found = self._ordered(ball, rows, distances, demand, work)
            if demand.groups is None or len(found.rows) == demand.k or complete_to == np.inf:
                return found
            size *= 4

    def _candidates(
        self, ball: Ball, feature: Features, size: int
    ) -> tuple[RowNumbers, npt.NDArray[np.float64], Work, float]:
        """At least the ``size`` nearest rows, and the distance up to which none is missing."""
        read, spared, complete_to = 0, 0, np.inf
        rows, distances = [], []
        for part, ranges in zip(self.parts, ball.ranges, strict=True):
            if len(ranges.starts) == 0:
                continue
            with part.watched():
                positions, some, rows_work = part.features.nearest(
                    feature, ranges.starts, ranges.stops, size, threads=self._threads
                )
            read += int(rows_work.rows_read)
            spared += int(rows_work.rows_skipped)
            rows.append(part.rows(positions))
            distances.append(some)
            if len(positions) < ranges.n_rows:
                complete_to = min(complete_to, float(some[-1]))
        work = _work(ball)._replace(read=read, spared=spared)
        return *_joined(rows, distances), work, complete_to

    def _ordered(
        self,
        ball: Ball,
        rows: RowNumbers,
        distances: npt.NDArray[np.float64],
        demand: Demand,
        work: Work,
    ) -> Found:
        if demand.skip is not None and len(demand.skip):
            admitted = ~np.isin(rows, demand.skip)
            rows, distances = rows[admitted], distances[admitted]
        groups = demand.groups
        chosen = nearest(
            distances,
            demand.k,
            lambda tied: self._reader.tie_keys(rows[tied]),
            None if groups is None else lambda some: groups(rows[some]),
            demand.per_group,
        )
        return Found(rows[chosen], distances[chosen], ball.radius, ball.n_rows, ball.widened, work)

    def _find_many(self, features: Features, codes: Codes, demands: Sequence[Demand]) -> FoundMany:
        answered, found = self._several_at_once(features, codes, demands)
        if len(answered) == len(demands) and found is not None:
            return found
        result = dict(zip(answered, found or (), strict=True))
        left = [number for number in range(len(demands)) if number not in result]
        some = [self._looking(demands[number]) for number in left]
        result.update(zip(left, self._in_two_steps(features[left], codes[left], some), strict=True))
        return FoundMany.of([result[number] for number in range(len(demands))])

    def _several_at_once(
        self, features: Features, codes: Codes, demands: Sequence[Demand]
    ) -> tuple[list[int], FoundMany | None]:
        """As ``_found_at_once``, where balls are small: the queries answered, and their answers.

        What many queries share is read for all of them at once, and left.
        """
        if self._snapshot.has_removed:  # rows that all leave out are not named once a query
            each = enumerate(zip(features, codes, demands, strict=True))
            at_once = ((number, self._found_at_once(*one)) for number, one in each)
            found_alone = {number: one for number, one in at_once if one is not None}
            return list(found_alone), FoundMany.of(list(found_alone.values()))
        parts = self._segments
        k = demands[0].k if demands else 0
        plain = [
            number
            for number, demand in enumerate(demands)
            if demand.skip is not None and demand.groups is None and demand.k == k
        ]
        if parts is None or not plain:
            return [], None
        if len(plain) < len(demands):
            features, codes = features[plain], codes[plain]
        radius, widest = self._radii
        least = 0 if widest <= radius else k
        skips = [_skipped(demands[number]) for number in plain]
        ranked = np.ones(len(plain), bool)
        found: FoundMany | None = None
        for part in parts:
            alone = least if len(parts) == 1 else 0  # together they may hold enough
            answers = part.search_many(
                *(codes, features, radius, k, skips, alone, _MOST_AT_ONCE, self._threads)
            )
            some = FoundMany(
                *(answers.rows, answers.distances, answers.offsets),
                np.full(len(plain), radius, np.int64),
                *(answers.n_rows, np.zeros(len(plain), bool), answers.work),
            )
            found = some if found is None else found.beside(some, k)
            ranked &= answers.ranked
        if found is None:
            return [], None
        ranked &= found.balls >= least
        found = all_settled(found, k, self._reader)
        if ranked.all():
            return plain, found
        answered = np.flatnonzero(ranked).tolist()
        return [plain[place] for place in answered], found.chosen(ranked)

    def _in_two_steps(
        self, features: Features, codes: Codes, demands: Sequence[Demand]
    ) -> list[Found]:
        balls = self._balls(codes, demands)
        several = [number for number, demand in enumerate(demands) if demand.groups is None]
        found: list[Found | None] = [None] * len(demands)
        for number in set(range(len(demands))) - set(several):
            found[number] = self._ranked(balls[number], features[number], demands[number])
        candidates = self._candidates_of_many(
            [balls[number] for number in several],
            features[several],
            np.array([_size(demands[number]) for number in several], np.int64),
        )
        for number, (rows, distances) in zip(several, candidates, strict=True):
            ball = balls[number]
            found[number] = self._ordered(ball, rows, distances, demands[number], _work(ball))
        return [one for one in found if one is not None]

    def _balls(self, codes: Codes, demands: Sequence[Demand]) -> list[Ball]:
        """The balls of all queries; those that must widen, or filter row by row, one by one."""
        radius, widest = self._radii
        per_part = [part.balls(codes, radius, self._threads) for part in self.parts]
        counts = sum((balls.counts() for balls in per_part), np.zeros(len(codes), np.int64))
        result: list[Ball | None] = [None] * len(demands)
        lacking = []
        for number, demand in enumerate(demands):
            if demand.skip is None or demand.groups is not None:
                continue
            n_rows = int(counts[number]) - int((demand.skip_bits <= radius).sum())
            if n_rows >= demand.k or widest <= radius:
                ranges = tuple(balls.of(number) for balls in per_part)
                work = total_work(per_part, number)
                result[number] = Ball(ranges, n_rows, radius, widened=False, work=work)
            else:
                lacking.append(number)
        if lacking:
            some = [demands[number] for number in lacking]
            wider = widened_balls(self.parts, codes[lacking], self._radii, some, self._threads)
            for number, ball in zip(lacking, wider, strict=True):
                result[number] = ball
        return [
            find_ball(self.parts, code, self._radii, demand, self._threads)
            if ball is None
            else ball
            for ball, code, demand in zip(result, codes, demands, strict=True)
        ]

    def _candidates_of_many(
        self, balls: Sequence[Ball], features: Features, sizes: npt.NDArray[np.int64]
    ) -> list[tuple[RowNumbers, npt.NDArray[np.float64]]]:
        """For each ball the rows that may be among the nearest, and their distances."""
        rows: list[list[RowNumbers]] = [[] for _ in balls]
        distances: list[list[npt.NDArray[np.float64]]] = [[] for _ in balls]
        for number, part in enumerate(self.parts):
            ranges = [ball.ranges[number] for ball in balls]
            offsets = np.cumsum([0, *(len(one.starts) for one in ranges)])
            joined = _concatenated(ranges)
            with part.watched():
                bounds, positions, some = part.features.nearest_many(
                    features, offsets, joined.starts, joined.stops, sizes, threads=self._threads
                )
            some_rows = part.rows(positions)
            for query, (start, stop) in enumerate(pairwise(bounds.tolist())):
                rows[query].append(some_rows[start:stop])
                distances[query].append(some[start:stop])
        return list(map(_joined, rows, distances))


def _joined(
    rows: Sequence[RowNumbers], distances: Sequence[npt.NDArray[np.float64]]
) -> tuple[RowNumbers, npt.NDArray[np.float64]]:
    if len(rows) == 1:
        return rows[0], distances[0]
    nothing, nowhere = np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate([nothing, *rows]), np.concatenate([nowhere, *distances])


def _concatenated(ranges: Sequence[Ranges]) -> Ranges:
    nothing = np.zeros(0, np.int64)
    return Ranges(
        np.concatenate([nothing, *(one.starts for one in ranges)]),
        np.concatenate([nothing, *(one.stops for one in ranges)]),
        np.concatenate([np.zeros(0, np.uint16), *(one.distances for one in ranges)]),
    )


def _nearest_of(answers: Sequence[TwoStageAnswer], k: int) -> TwoStageAnswer:
    """The k nearest rows, and ties, of what several segments ranked; the path is the last one's."""
    rows = np.concatenate([answer.rows for answer in answers if answer.rows is not None])
    distances = np.concatenate([one.distances for one in answers if one.distances is not None])
    order = np.argsort(distances, kind="stable")
    if len(order) > k:
        order = order[: np.searchsorted(distances, distances[order[k - 1]], "right", order)]
    path = answers[-1].work[0]
    _, *steps = (sum(numbers) for numbers in zip(*(answer.work for answer in answers), strict=True))
    n_rows = sum(answer.n_rows for answer in answers)
    return TwoStageAnswer(n_rows, rows[order], distances[order], (path, *steps))


def _skipped(demand: Demand) -> RowNumbers:
    return _NO_ROWS if demand.skip is None else demand.skip


def _size(demand: Demand) -> int:
    return demand.k + (0 if demand.skip is None else len(demand.skip))


def _work(ball: Ball) -> Work:
    return Work(*(int(value) for value in ball.work))
