"""The first stage: the rows within a Hamming radius, widened until they hold k neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.search.parts import Balls, Codes, Part, Ranges
from patchknn.search.pool import Demand, Yield

_LOOK = 1024  # rows whose groups are counted at first, then twice as many each time


class Ball(NamedTuple):
    """The ball of one query: ``ranges`` per part, ``n_rows`` of them after filters.

    Rows that the demand names in ``skip`` may still be in the ranges; ``n_rows`` does not count
    them. ``work`` (4,) int64: path, look-ups, candidates checked, codes scanned. ``suffices`` is
    False where the rows' groups are known to yield fewer than k.
    """

    ranges: tuple[Ranges, ...]
    n_rows: int
    radius: int
    widened: bool
    work: npt.NDArray[np.int64]
    suffices: bool = True


def find_ball(
    parts: Sequence[Part], code: Codes, radii: tuple[int, int], demand: Demand, threads: int
) -> Ball:
    """The rows that ``demand`` admits within ``radii[0]`` bits of ``code`` (K/8,), inclusive.

    Where they do not yield k rows, those within the smallest larger radius that does, and within
    ``radii[1]`` where none does.
    """
    radius, widest = radii
    search = _Widening(parts, code, demand, threads)
    ball = search.within(radius)
    if ball is not None or widest <= radius:
        return ball or search.last(radius, widened=False)
    if demand.skip is not None and demand.groups is None:
        return widened_balls(parts, code[None], radii, [demand], threads)[0]
    return search.ring_by_ring(radius, widest)


def widened_balls(
    parts: Sequence[Part],
    codes: Codes,
    radii: tuple[int, int],
    demands: Sequence[Demand],
    threads: int,
) -> list[Ball]:
    """The balls of codes (Q, K/8) that hold too few rows within ``radii[0]``.

    For demands whose filters look at no row: rows need only be counted.
    """
    skipped = [demand.skip_bits for demand in demands]
    # So many, whichever of the rows to be skipped lie within.
    wanted = max(demand.k + len(bits) for demand, bits in zip(demands, skipped, strict=True))
    found = [part.nearest(codes, wanted, radii[1], threads) for part in parts]
    balls = []
    for number, (demand, bits) in enumerate(zip(demands, skipped, strict=True)):
        ranges, counts = rings_of(found, number, bits, radii[1])
        work = total_work([part_balls for part_balls, _ in found], number)
        totals = np.cumsum(counts)
        enough = np.flatnonzero(totals >= demand.k)
        smallest = max(int(enough[0]), radii[0]) if len(enough) else radii[1]
        kept = tuple(one.chosen(one.distances <= smallest) for one in ranges)
        n_rows = int(totals[min(smallest, len(totals) - 1)])
        balls.append(Ball(kept, n_rows, smallest, widened=True, work=work))
    return balls


def rings_of(
    found: Sequence[tuple[Balls, npt.NDArray[np.int32]]],
    number: int,
    skipped: npt.NDArray[np.int64],
    widest: int,
) -> tuple[list[Ranges], npt.NDArray[np.int64]]:
    """One query's ranges in each part, and how many rows lie at each distance, nearest first.

    ``found`` is what ``Part.nearest`` gives for each part; rows at the distances ``skipped`` (s,)
    are not counted. The counts end where some part holds enough alone, or with ``widest``.
    """
    ranges = [part_balls.of(number) for part_balls, _ in found]
    reached = [int(radius[number]) for _, radius in found if radius[number] >= 0]
    # What a part holds within its own radius holds what it has within the smallest.
    bound = min(reached, default=widest)
    counts = np.zeros(bound + 1, np.int64)
    for one in ranges:
        near = one.chosen(one.distances <= bound)
        lengths = near.stops - near.starts
        counts += np.bincount(near.distances, lengths, bound + 1).astype(np.int64)
    counts -= np.bincount(skipped[skipped <= bound], minlength=bound + 1)
    return ranges, counts


def total_work(balls: Sequence[Balls], number: int) -> npt.NDArray[np.int64]:
    """What one query took in all parts, (4,)."""
    work = np.zeros(4, np.int64)
    for one in balls:
        work[0] = max(work[0], one.work[number, 0])
        work[1:] += one.work[number, 1:]
    return work


class _Widening:
    """The balls of one query, larger and larger."""

    def __init__(self, parts: Sequence[Part], code: Codes, demand: Demand, threads: int) -> None:
        self._parts = parts
        self._code = code
        self._demand = demand
        self._threads = threads
        self._work = np.zeros(4, np.int64)
        self._ranges: list[Ranges] = []
        self._n_rows = 0
        self._suffices = True

    def within(self, radius: int) -> Ball | None:
        """The ball of this radius, None where it does not yield k rows."""
        found = Yield(self._demand)
        self._ranges, self._n_rows = [], 0
        for part, ranges in zip(self._parts, self._unfiltered(radius), strict=True):
            kept = self._admitted(part, ranges, found)
            self._ranges.append(kept)
            self._n_rows += kept.n_rows
        if self._demand.skip is not None:
            self._n_rows -= self._skipped(radius)
            if self._demand.groups is None:
                suffices = self._n_rows >= self._demand.k
                return self.last(radius, widened=False) if suffices else None
        self._suffices = found.suffices()
        return self.last(radius, widened=False) if self._suffices else None

    def last(self, radius: int, *, widened: bool) -> Ball:
        """What was found last, as an answer."""
        ranges = tuple(self._ranges)
        return Ball(ranges, self._n_rows, radius, widened, self._work, self._suffices)

    def ring_by_ring(self, radius: int, widest: int) -> Ball:
        """Widen where filters must see the rows: those at each distance, nearest first."""
        all_ranges = self._unfiltered(widest)
        rings = np.unique(_joined(all_ranges).distances)
        found = Yield(self._demand)
        kept: list[list[Ranges]] = [[] for _ in self._parts]
        n_rows = 0
        smallest = widest
        for ring in rings.tolist():
            for part, ranges, own in zip(self._parts, all_ranges, kept, strict=True):
                admitted = self._admitted(part, ranges.chosen(ranges.distances == ring), found)
                own.append(admitted)
                n_rows += admitted.n_rows
            if self._demand.skip is not None:
                n_rows -= int((self._demand.skip_bits == ring).sum())
            if found.suffices() and ring >= radius:
                smallest = ring
                break
        self._ranges, self._n_rows = [_joined(own) for own in kept], n_rows
        self._suffices = found.suffices()
        return self.last(smallest, widened=True)

    def _unfiltered(self, radius: int) -> list[Ranges]:
        balls = [part.balls(self._code[None], radius, self._threads) for part in self._parts]
        work = total_work(balls, 0)
        self._work[0] = max(self._work[0], work[0])
        self._work[1:] += work[1:]
        return [one.of(0) for one in balls]

    def _admitted(self, part: Part, ranges: Ranges, found: Yield) -> Ranges:
        """The ranges without the rows that the demand keeps out; ``found`` counts what is left."""
        if self._demand.skip is not None and self._demand.groups is None:
            return ranges
        positions, distances = ranges.positions()
        if self._demand.skip is not None:  # the ranges stay whole: look no further than needed
            start, look = 0, _LOOK
            while start < len(positions) and not found.suffices():
                rows = part.rows(positions[start : start + look])
                found.add(rows[self._demand.admits(rows)])
                start, look = start + look, 2 * look
            return ranges
        rows = part.rows(positions)
        admitted = self._demand.admits(rows)
        found.add(rows[admitted])
        return _ranges_of(positions[admitted], distances[admitted])

    def _skipped(self, radius: int) -> int:
        return int((self._demand.skip_bits <= radius).sum())


def _ranges_of(positions: npt.NDArray[np.int64], distances: npt.NDArray[np.uint16]) -> Ranges:
    new = np.ones(len(positions), bool)
    new[1:] = (positions[1:] != positions[:-1] + 1) | (distances[1:] != distances[:-1])
    first = np.flatnonzero(new)
    lengths = np.diff(np.append(first, len(positions)))
    return Ranges(positions[first], positions[first] + lengths, distances[first])


def _joined(ranges: Sequence[Ranges]) -> Ranges:
    if not ranges:
        nothing = np.zeros(0, np.int64)
        return Ranges(nothing, nothing, np.zeros(0, np.uint16))
    return Ranges(
        np.concatenate([one.starts for one in ranges]),
        np.concatenate([one.stops for one in ranges]),
        np.concatenate([one.distances for one in ranges]),
    )
