"""What is searched as one: the rows of an index segment, or of shards that no segment covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.segment import Segment
from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.errors import PatchknnError
from patchknn.hamming.code_table import Hits
from patchknn.hamming.feature_table import FeatureTable
from patchknn.hamming.packing import words
from patchknn.hamming.scan import scan_rows
from patchknn.hamming.two_stage import TwoStage, TwoStageAnswer, TwoStageAnswers
from patchknn.search.query import all_finite
from patchknn.search.rows import RowNumbers

Codes = npt.NDArray[np.uint8]


class Ranges(NamedTuple):
    """Positions ``starts[i]`` to ``stops[i]`` (exclusive) of a part, at ``distances[i]`` bits.

    starts, stops (m,) int64, disjoint, in no particular order; distances (m,).
    """

    starts: RowNumbers
    stops: RowNumbers
    distances: npt.NDArray[np.uint16]

    @property
    def n_rows(self) -> int:
        """How many positions they hold together."""
        return int((self.stops - self.starts).sum())

    def chosen(self, keep: npt.NDArray[np.bool_]) -> Ranges:
        """Those of the ranges (m,) where ``keep`` is true."""
        return Ranges(self.starts[keep], self.stops[keep], self.distances[keep])

    def positions(self) -> tuple[RowNumbers, npt.NDArray[np.uint16]]:
        """Every position (n,), range after range, and its distance (n,)."""
        lengths = self.stops - self.starts
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        places = np.repeat(self.starts - (ends - lengths), lengths)
        return places + np.arange(total, dtype=np.int64), np.repeat(self.distances, lengths)


class Balls(NamedTuple):
    """What one part holds of the balls of Q queries: ``offsets`` (Q + 1,) into the ranges."""

    offsets: npt.NDArray[np.int64]
    ranges: Ranges
    work: npt.NDArray[np.int64]

    def counts(self) -> npt.NDArray[np.int64]:
        """How many rows each ball holds, (Q,)."""
        before = np.zeros(len(self.ranges.starts) + 1, np.int64)
        np.cumsum(self.ranges.stops - self.ranges.starts, out=before[1:])
        return np.diff(before[self.offsets])

    def of(self, query: int) -> Ranges:
        """The ranges of one query."""
        mine = slice(int(self.offsets[query]), int(self.offsets[query + 1]))
        return Ranges(
            self.ranges.starts[mine], self.ranges.stops[mine], self.ranges.distances[mine]
        )


class DamagedPartError(PatchknnError):
    """An index segment holds a value that cannot be; its shards must be searched without it."""

    def __init__(self, part: SegmentPart, reason: str) -> None:
        super().__init__(reason)
        self.part = part


class Part(Protocol):
    """Rows in the order of their codes (a *position* each), and their features."""

    @property
    def shards(self) -> Sequence[Shard]:
        """What it is made of."""

    @property
    def features(self) -> FeatureTable:
        """The features by position."""

    def balls(self, codes: Codes, radius: int, threads: int) -> Balls:
        """Every range within ``radius`` bits of each of codes (Q, K/8), inclusive."""

    def nearest(
        self, codes: Codes, k: int, widest: int, threads: int
    ) -> tuple[Balls, npt.NDArray[np.int32]]:
        """The balls of the smallest radii (Q,) up to ``widest`` that hold k rows.

        Around codes (Q, K/8); the ball of ``widest`` and −1 where that holds fewer.
        """

    def rows(self, positions: RowNumbers) -> RowNumbers:
        """Rows of the snapshot (m,) at positions (m,)."""

    def watched(self) -> AbstractContextManager[None]:
        """Where ``features`` is used: what is wrong with the part itself is told apart."""


class SegmentPart:
    """An index segment; every method raises DamagedPartError where it finds it damaged."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        # What makes a segment row a row of the snapshot, where that is the same for all of them.
        self._shift = segment.constant_shift

    @property
    def shards(self) -> Sequence[Shard]:
        """As ``Part``."""
        return self.segment.shards

    @property
    def features(self) -> FeatureTable:
        """As ``Part``."""
        return self.segment.features

    def balls(self, codes: Codes, radius: int, threads: int) -> Balls:
        """As ``Part``."""
        with self.watched():
            hits = self.segment.table.ball(words(codes), radius, threads=threads)
            return Balls(hits.offsets, self._ranges(hits), hits.work)

    def nearest(
        self, codes: Codes, k: int, widest: int, threads: int
    ) -> tuple[Balls, npt.NDArray[np.int32]]:
        """As ``Part``."""
        with self.watched():
            hits, radii = self.segment.table.nearest(words(codes), k, widest, threads=threads)
            return Balls(hits.offsets, self._ranges(hits), hits.work), radii

    def rows(self, positions: RowNumbers) -> RowNumbers:
        """As ``Part``."""
        try:
            return self._snapshot_rows(self.segment.segment_rows(positions))
        except ValueError as error:
            raise DamagedPartError(self, str(error)) from None

    def search(  # noqa: PLR0917
        self,
        code: Codes,
        feature: npt.NDArray[Any],
        radius: int,
        k: int,
        skip: RowNumbers,
        least: int,
    ) -> TwoStageAnswer:
        """The nearest rows to ``feature`` (D,) in the ball of ``code`` (K/8,), in one call.

        Rows of the answer, and ``skip`` (s,), which are left out, are the snapshot's; ranked where
        ``least`` rows remain. ValueError where ``feature`` is not finite.
        """
        skipped = self._left_out(skip)
        try:
            answer = self._both_stages.search(code, feature, radius, k, skipped, least=least)
        except ValueError as error:
            raise self._fault(feature, error) from None
        if answer.rows is None or self._shift == 0:
            return answer
        return answer._replace(rows=self._snapshot_rows(answer.rows))

    def search_many(  # noqa: PLR0917
        self,
        codes: Codes,
        features: npt.NDArray[Any],
        radius: int,
        k: int,
        skips: Sequence[RowNumbers],
        least: int,
        most: int,
        threads: int,
    ) -> TwoStageAnswers:
        """The same for features (Q, D), codes (Q, K/8) and the rows that each leaves out.

        Balls of more than ``most`` rows are not ranked either.
        """
        skipped = None
        if any(map(len, skips)):
            skipped = [self._segment_rows(skip) if len(skip) else skip for skip in skips]
        try:
            answers = self._both_stages.search_many(
                *(words(codes), features, radius, k, skipped),
                least=least,
                most=most,
                threads=threads,
            )
        except ValueError as error:
            raise self._fault(features, error) from None
        return answers._replace(rows=self._snapshot_rows(answers.rows))

    def _left_out(self, skip: RowNumbers) -> RowNumbers | None:
        """Segment rows that may not answer, ascending: removed ones, and rows ``skip``."""
        removed = self._removed
        if not len(skip):
            return removed if len(removed) else None
        own = self._segment_rows(skip)
        return np.union1d(removed, own) if len(removed) else own

    @cached_property
    def _removed(self) -> RowNumbers:
        firsts = self.segment.first_rows
        parts = [s.edits.removed + first for s, first in zip(self.shards, firsts, strict=False)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _snapshot_rows(self, segment_rows: RowNumbers) -> RowNumbers:
        if self._shift is not None:
            return segment_rows + self._shift if self._shift else segment_rows
        return self.segment.snapshot_rows(segment_rows)

    def _fault(self, features: npt.NDArray[Any], error: ValueError) -> Exception:
        """Whose fault it is: the segment's, or that of features which are not finite."""
        return DamagedPartError(self, str(error)) if all_finite(features) else error

    @cached_property
    def _both_stages(self) -> TwoStage:
        return TwoStage(self.segment.table, self.segment.features)

    def _segment_rows(self, rows: RowNumbers) -> RowNumbers:
        """Those of the snapshot's rows that are of this segment, by segment row, ascending."""
        firsts = self.segment.shards.first_rows
        order = np.argsort(firsts)
        owners = order[np.searchsorted(firsts[order], rows, side="right") - 1]
        within = rows - firsts[owners]
        lengths = np.diff(self.segment.first_rows)
        own = (within >= 0) & (within < lengths[owners])
        return np.sort((within + self.segment.first_rows[owners])[own])

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what the kernels say of a value out of range into DamagedPartError."""
        try:
            yield
        except ValueError as error:
            raise DamagedPartError(self, str(error)) from None

    def _ranges(self, hits: Hits) -> Ranges:
        bounds = self.segment.code_arrays.bounds
        starts = bounds[hits.codes].astype(np.int64)
        stops = bounds[hits.codes + np.uint32(1)].astype(np.int64)
        if len(starts) and ((starts >= stops).any() or stops.max() > self.segment.n_rows):
            message = "the bounds of a code are out of range"
            raise ValueError(message)
        return Ranges(starts, stops, hits.distances)


class ScanPart:
    """Shards that no usable segment covers: their codes are read from one end to the other."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._first_rows = np.cumsum([0, *(shard.n for shard in shards)]).astype(np.int64)
        targets = np.array([shard.first_row for shard in shards], np.int64)
        self._shifts = targets - self._first_rows[:-1]

    @property
    def shards(self) -> Sequence[Shard]:
        """As ``Part``."""
        return self._shards

    @cached_property
    def features(self) -> FeatureTable:
        """As ``Part``."""
        return FeatureTable([shard.features for shard in self.shards])

    def balls(self, codes: Codes, radius: int, threads: int) -> Balls:
        """As ``Part``."""
        per_shard = [scan_rows(shard.codes, codes, radius, threads) for shard in self.shards]
        first_rows = self._first_rows
        owners, rows, distances = [], [], []
        for first, (offsets, found, bits) in zip(first_rows, per_shard, strict=False):
            owners.append(np.repeat(np.arange(len(codes)), np.diff(offsets)))
            rows.append(found + first)
            distances.append(bits)
        owner, row, distance = map(np.concatenate, (owners, rows, distances))
        order = np.argsort(owner, kind="stable")
        owner, row, distance = owner[order], row[order], distance[order]
        # Rows of one code lie together: neighbours in the list become one range.
        new = np.ones(len(row), bool)
        new[1:] = (
            (row[1:] != row[:-1] + 1) | (distance[1:] != distance[:-1]) | (owner[1:] != owner[:-1])
        )
        new[1:] |= np.isin(row[1:], first_rows)
        first = np.flatnonzero(new)
        lengths = np.diff(np.append(first, len(row)))
        ranges = Ranges(row[first], row[first] + lengths, distance[first])
        work = np.zeros((len(codes), 4), np.int64)
        work[:, 3] = first_rows[-1]
        return Balls(np.searchsorted(owner[first], np.arange(len(codes) + 1)), ranges, work)

    def nearest(
        self, codes: Codes, k: int, widest: int, threads: int
    ) -> tuple[Balls, npt.NDArray[np.int32]]:
        """As ``Part``; the balls are those of ``widest``, which hold the smaller ones."""
        balls = self.balls(codes, widest, threads)
        radii = np.full(len(codes), -1, np.int32)
        for query in range(len(codes)):
            ranges = balls.of(query)
            lengths = ranges.stops - ranges.starts
            counts = np.bincount(ranges.distances, weights=lengths, minlength=widest + 1)
            reached = np.flatnonzero(np.cumsum(counts) >= k)
            if len(reached):
                radii[query] = reached[0]
        return balls, radii

    def rows(self, positions: RowNumbers) -> RowNumbers:
        """As ``Part``."""
        shard = np.searchsorted(self._first_rows, positions, side="right") - 1
        return positions + self._shifts[shard]

    def watched(self) -> AbstractContextManager[None]:
        """As ``Part``."""
        return nullcontext()


def parts_of(snapshot: Snapshot) -> list[Part]:
    """The parts that make up a snapshot: its index segments, and one of all other shards."""
    cover = snapshot.cover
    parts: list[Part] = [SegmentPart(segment) for segment in cover.segments]
    if cover.bare:
        parts.append(ScanPart(cover.bare))
    return parts
