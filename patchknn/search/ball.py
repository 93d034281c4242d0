"""The first stage: the rows within a Hamming radius, widened until they hold k neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.search.pool import Demand, Pool, Yield
from patchknn.search.rows import RowNumbers


def find_ball(
    snapshot: Snapshot, code: npt.NDArray[np.uint8], radius: int, widest: int, demand: Demand
) -> Pool:
    """The rows that ``demand`` admits within ``radius`` bits of ``code`` (K/8,), inclusive.

    Where they do not yield k rows, those within the smallest larger radius that does, and within
    ``widest`` where none does.
    """
    start, stop, _ = _runs(snapshot, code, radius)
    rows = demand.keep(_expand(start, stop))
    found = Yield(demand)
    found.add(rows)
    if found.suffices() or widest <= radius:
        return Pool(rows, radius, widened=False)
    start, stop, distance = _runs(snapshot, code, widest)
    parts = [rows]
    for ring in np.unique(distance[distance > radius]).tolist():
        on_ring = distance == ring
        rows = demand.keep(_expand(start[on_ring], stop[on_ring]))
        found.add(rows)
        parts.append(rows)
        if found.suffices():
            return Pool(np.concatenate(parts), ring, widened=True)
    return Pool(np.concatenate(parts), widest, widened=True)


def _runs(
    snapshot: Snapshot, code: npt.NDArray[np.uint8], radius: int
) -> tuple[RowNumbers, RowNumbers, npt.NDArray[Any]]:
    """Runs of global rows, start (m,) and stop (m,), and the Hamming distance of each."""
    starts, stops, distances = [], [], []
    for shard in snapshot.shards:
        runs = shard.ball_index.ball(code, radius)
        starts.append(np.asarray(runs.start, np.int64) + shard.first_row)
        stops.append(np.asarray(runs.stop, np.int64) + shard.first_row)
        distances.append(np.asarray(runs.distance))
    if not starts:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    return np.concatenate(starts), np.concatenate(stops), np.concatenate(distances)


def _expand(start: RowNumbers, stop: RowNumbers) -> RowNumbers:
    order = np.argsort(start)  # rows in the order in which they lie on disk
    start, lengths = start[order], (stop - start)[order]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(start - (ends - lengths), lengths) + np.arange(total, dtype=np.int64)
