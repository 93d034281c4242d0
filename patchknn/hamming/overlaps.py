"""Which rows many queries share: ranges of each query turned into queries of each range."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

_MOST_PAIRS = 1 << 22


class Ranges(NamedTuple):
    """Ranges of positions of Q queries: those of query q from offsets[q] to offsets[q + 1].

    offsets (Q + 1,), starts (m,), stops (m,) int64.
    """

    offsets: Int64
    starts: Int64
    stops: Int64

    def of(self, queries: slice) -> Ranges:
        """The ranges of consecutive queries alone."""
        offsets = self.offsets[queries.start : queries.stop + 1]
        own = slice(int(offsets[0]), int(offsets[-1]))
        return Ranges(offsets - offsets[0], self.starts[own], self.stops[own])

    def rows_before(self) -> Int64:
        """How many rows the queries before each have together: (Q + 1,) int64."""
        before = np.zeros(len(self.starts) + 1, np.int64)
        np.cumsum(self.stops - self.starts, out=before[1:])
        return before[self.offsets]


class Shared(NamedTuple):
    """Disjoint ranges (s,) that several queries share; those of range i are
    queries[offsets[i] : offsets[i + 1]].
    """

    starts: Int64
    stops: Int64
    offsets: Int64
    queries: Int64


def part_shared(ranges: Ranges, least_queries: int, least_products: int) -> tuple[Shared, Ranges]:
    """Part what many queries share from the rest, which stays with each query.

    A range is shared where at least ``least_queries`` queries have all of its rows, and rows times
    queries are at least ``least_products``. The ranges of one query are disjoint.
    """
    owners = np.repeat(np.arange(len(ranges.offsets) - 1), np.diff(ranges.offsets))
    filled = ranges.stops > ranges.starts
    owners, starts, stops = owners[filled], ranges.starts[filled], ranges.stops[filled]
    edges = np.unique(np.concatenate([starts, stops]))
    first, last = np.searchsorted(edges, starts), np.searchsorted(edges, stops)
    n = max(0, len(edges) - 1)  # pieces between neighbouring edges
    cover = np.cumsum(np.bincount(first, minlength=n + 1) - np.bincount(last, minlength=n + 1))[:n]
    products = cover * np.diff(edges)
    least = least_products
    while True:
        heavy = (cover >= least_queries) & (products >= least)
        before = np.append(0, np.cumsum(heavy))
        if int((before[last] - before[first]).sum()) <= _MOST_PAIRS:
            break
        least *= 4
    numbers, pair_owners = _expanded(before[first], before[last], owners)
    order = np.argsort(numbers, kind="stable")
    pieces = np.flatnonzero(heavy)
    shared = Shared(
        edges[pieces],
        edges[pieces + 1],
        np.append(0, np.cumsum(np.bincount(numbers, minlength=len(pieces)))),
        pair_owners[order],
    )
    if not len(pieces):
        return shared, ranges
    # What is left of a range are the runs of other pieces that it meets.
    flags = np.concatenate([[True], heavy, [True]])
    run_first = np.flatnonzero(flags[:-1] & ~flags[1:])
    run_last = np.flatnonzero(~flags[:-1] & flags[1:])
    low = np.searchsorted(run_last, first, side="right")
    high = np.searchsorted(run_first, last, side="left")
    runs, left = _expanded(low, np.maximum(low, high), np.arange(len(starts)))
    rest = Ranges(
        np.append(0, np.cumsum(np.bincount(owners[left], minlength=len(ranges.offsets) - 1))),
        np.maximum(edges[run_first[runs]], starts[left]),
        np.minimum(edges[run_last[runs]], stops[left]),
    )
    return shared, rest


def shares(before: Int64, parts: int) -> list[tuple[int, int]]:
    """Queries 0 to Q in at most ``parts`` consecutive spans of about as many rows each.

    ``before`` (Q + 1,) as ``Ranges.rows_before`` gives it.
    """
    # One more for each query: those without rows cost something too.
    work = before + np.arange(len(before))
    wanted = np.linspace(0, work[-1], parts + 1)[1:-1]
    cuts = [0, *np.searchsorted(work, wanted).tolist(), len(before) - 1]
    return [(low, high) for low, high in pairwise(cuts) if low < high]


def _expanded(low: Int64, high: Int64, values: Int64) -> tuple[Int64, Int64]:
    """Numbers low[i] to high[i] for each i, one after the other, and values[i] beside each."""
    lengths = high - low
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    numbers = np.arange(total) + np.repeat(low - (ends - lengths), lengths)
    return numbers, np.repeat(values, lengths)
