"""Rows that kernels put in order by distance, put in order among equals too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchknn.search.found import FoundMany
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowNumbers, RowReader


def settled(
    rows: RowNumbers, distances: npt.NDArray[np.float64], k: int, reader: RowReader
) -> tuple[RowNumbers, npt.NDArray[np.float64]]:
    """The first k of rows (m,) that are in order but for ties."""
    order = nearest(distances, k, lambda tied: reader.tie_keys(rows[tied]))
    return rows[order], distances[order]


def all_settled(found: FoundMany, k: int, reader: RowReader) -> FoundMany:
    """The first k rows of each query, of rows that are in order but for ties."""
    rows, distances, offsets = found.rows, found.distances, found.offsets
    too_many = np.flatnonzero(np.diff(offsets) > k)
    # Equal neighbours may be of two queries; to put such in order changes nothing.
    equal = np.flatnonzero(distances[1:] == distances[:-1])
    tied = np.searchsorted(offsets, equal, side="right") - 1
    if not len(too_many) and not len(tied):
        return found
    kept = np.ones(len(rows), bool)
    for query in np.union1d(too_many, tied).tolist():
        start, stop = int(offsets[query]), int(offsets[query + 1])
        own, far = settled(rows[start:stop], distances[start:stop], k, reader)
        end = start + len(own)
        rows[start:end], distances[start:end] = own, far
        kept[end:stop] = False
    offsets = np.append(0, np.cumsum(kept))[offsets]
    found.rows, found.distances, found.offsets = rows[kept], distances[kept], offsets
    return found
