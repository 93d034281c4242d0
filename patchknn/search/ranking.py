"""The final order: by distance, ties by name and position, groups capped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.intp]


def nearest(
    distances: npt.NDArray[np.float64],
    k: int,
    tie_keys: Callable[[Positions], Sequence[Any]],
    groups: Callable[[Positions], npt.NDArray[np.int64]] | None = None,
    per_group: int = 0,
) -> Positions:
    """Positions of the k smallest of ``distances`` (m,) in rank order, fewer where there are fewer.

    Equal distances are ordered by ``tie_keys(positions)``, one comparable key per position. With
    ``groups`` (one group number per position) ranks are walked from the nearest and a row is
    passed over once its group has ``per_group`` rows in the answer.
    """
    n = len(distances)
    if groups is None and (distances[1:] > distances[:-1]).all():
        return np.arange(min(k, n))  # ranked already, and no ties: as one part finds them
    size = min(k, n)
    while size > 0:
        prefix = ranked_prefix(distances, size, tie_keys)
        if groups is None:
            return prefix[:k]
        admitted = prefix[place_in_group(groups(prefix)) < per_group]
        if len(admitted) >= k or len(prefix) == n:
            return admitted[:k]
        size = min(4 * size, n)
    return np.empty(0, np.intp)


def ranked_prefix(
    distances: npt.NDArray[np.float64],
    size: int,
    tie_keys: Callable[[Positions], Sequence[Any]],
) -> Positions:
    """The first ``size`` positions of the ranking of ``distances`` (m,), and all their ties."""
    if size < len(distances):
        bound = np.partition(distances, size - 1)[size - 1]
        chosen = np.flatnonzero(distances <= bound)
    else:
        chosen = np.arange(len(distances))
    values = distances[chosen]
    order = np.argsort(values, kind="stable")
    chosen, values = chosen[order], values[order]
    edges = np.flatnonzero(np.diff(values) != 0) + 1
    starts, stops = np.append(0, edges), np.append(edges, len(values))
    several = stops - starts > 1
    for start, stop in zip(starts[several], stops[several], strict=True):
        tied = chosen[start:stop]
        keys = tie_keys(tied)
        chosen[start:stop] = tied[sorted(range(len(tied)), key=keys.__getitem__)]
    return chosen


def place_in_group(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """For each entry of ``groups`` (m,) how many earlier entries are of the same group."""
    # NumPy sorts numbers of 16 bits in one pass over them.
    small = len(groups) > 0 and int(groups.min()) >= 0 and int(groups.max()) < 1 << 16
    order = np.argsort(groups.astype(np.uint16) if small else groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(groups) else order
    lengths = np.diff(np.append(starts, len(groups)))
    places = np.empty(len(groups), np.intp)
    places[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return places
