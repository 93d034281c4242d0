"""How far out a query must be searched: counted by each share of the rows, and summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.search.ball import rings_of, total_work
from patchknn.search.parts import Codes, Part
from patchknn.search.pool import Demand, Yield
from patchknn.search.ranking import place_in_group
from patchknn.search.rows import RowNumbers

Bits = npt.NDArray[np.int64]
_NO_ROWS = np.zeros(0, np.int64)


class Near(NamedTuple):
    """What a share holds around one query, as far as others must know it.

    ``enough`` is the smallest radius whose ball yields k rows here alone, ``widest + 1`` where
    none does. ``distances`` (m,), ascending, are of the rows that lie nearer, m < k: those that
    ``per_group`` would pass over in any order are left out, as they add to no yield. ``rows``
    (m,) are these rows where groups are capped, else empty. ``work`` as Ball has it.
    """

    enough: int
    distances: Bits
    rows: RowNumbers
    work: npt.NDArray[np.int64]


def rows_near(
    parts: Sequence[Part], codes: Codes, demands: Sequence[Demand], widest: int, threads: int
) -> list[Near]:
    """What ``parts`` hold around codes (Q, K/8), up to ``widest`` bits away."""
    counted = [
        number
        for number, demand in enumerate(demands)
        if demand.skip is not None and demand.groups is None
    ]
    near: dict[int, Near] = {}
    if counted:
        some = [demands[number] for number in counted]
        found = _counted(parts, codes[counted], some, widest, threads)
        near.update(zip(counted, found, strict=True))
    for number, demand in enumerate(demands):
        if number not in near:
            near[number] = _looked_at(parts, codes[number], demand, widest, threads)
    return [near[number] for number in range(len(demands))]


def smallest_radius(
    enough: Sequence[int],
    distances: Bits,
    groups: Bits | None,
    *,
    k: int,
    per_group: int,
    widest: int,
) -> int:
    """The smallest radius whose ball yields k rows of all shares together, ``widest`` where none.

    ``enough`` and ``distances`` (m,) are those of all shares, ``groups`` (m,) numbers their rows'
    groups, of which ``per_group`` count. Within less than the smallest of ``enough`` every share
    told of each row that counts, and at that radius one share suffices.
    """
    order = np.argsort(distances, kind="stable")
    if groups is not None:
        order = order[place_in_group(groups[order]) < per_group]
    together = int(distances[order[k - 1]]) if len(order) >= k else widest
    return min(together, widest, *enough)


def _counted(
    parts: Sequence[Part], codes: Codes, demands: Sequence[Demand], widest: int, threads: int
) -> list[Near]:
    """Where no row need be looked at."""
    skipped = [demand.skip_bits for demand in demands]
    wanted = max(demand.k + len(bits) for demand, bits in zip(demands, skipped, strict=True))
    found = [part.nearest(codes, wanted, widest, threads) for part in parts]
    near = []
    for number, (demand, bits) in enumerate(zip(demands, skipped, strict=True)):
        _, counts = rings_of(found, number, bits, widest)
        reached = np.flatnonzero(np.cumsum(counts) >= demand.k)
        enough = int(reached[0]) if len(reached) else widest + 1
        distances = np.repeat(np.arange(len(counts)), counts)
        work = total_work([balls for balls, _ in found], number)
        near.append(Near(enough, distances[distances < enough], _NO_ROWS, work))
    return near


def _looked_at(
    parts: Sequence[Part], code: Codes, demand: Demand, widest: int, threads: int
) -> Near:
    """Where filters must see the rows: those at each distance, nearest first."""
    balls = [part.balls(code[None], widest, threads) for part in parts]
    work = total_work(balls, 0)
    ranges = [one.of(0) for one in balls]
    found = Yield(demand)
    rows = distances = _NO_ROWS
    for ring in np.unique(np.concatenate([_NO_ROWS, *(r.distances for r in ranges)])).tolist():
        here = [rows]
        for part, own in zip(parts, ranges, strict=True):
            positions, _ = own.chosen(own.distances == ring).positions()
            some = part.rows(positions)
            here.append(some[demand.admits(some)])
            found.add(here[-1])
        if found.suffices():
            return Near(ring, distances, _NO_ROWS if demand.groups is None else rows, work)
        rows = np.concatenate(here)
        distances = np.append(distances, np.full(len(rows) - len(distances), ring))
        if demand.groups is not None:
            counts = place_in_group(demand.groups(rows)) < demand.per_group
            rows, distances = rows[counts], distances[counts]
    return Near(widest + 1, distances, _NO_ROWS if demand.groups is None else rows, work)
