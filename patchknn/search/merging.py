"""What shares of an archive found, as one search of all of it would have found it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from patchknn.search.found import FoundMany
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settling import all_settled
from patchknn.search.work import Work

_ALL = np.iinfo(np.int64).max


def merged(
    shares: Iterable[FoundMany],
    radii: npt.NDArray[np.int64],
    k: int,
    max_per: tuple[str, int] | None,
    reader: RowReader,
) -> FoundMany:
    """The k nearest rows of each query, of the k nearest that each share found at ``radii`` (Q,).

    With ``max_per`` too no share need send more. Before a row x the walk over a share lets through
    the sum over groups of min(rows of the group before x, cap). Where that is k, the walk over all
    rows, which has these before x and more, lets through k before x as well: x is not in the
    answer. And what the walk over all passes over before its end is passed over here: the rows
    that fill its group are in the answer, so in the shares' lists.
    """
    found = _nothing(radii)
    for one in shares:
        found = found.beside(one, k if max_per is None else _ALL)
    if max_per is None:
        return all_settled(found, k, reader)
    ends = found.offsets.tolist()
    chosen = [
        start + nearest_of(found.rows[start:stop], found.distances[start:stop], k, max_per, reader)
        for start, stop in pairwise(ends)
    ]
    kept = np.concatenate([np.zeros(0, np.intp), *chosen])
    offsets = np.cumsum([0, *map(len, chosen)], dtype=np.int64)
    rest = (found.radii, found.balls, found.widened, found.work)
    return FoundMany(found.rows[kept], found.distances[kept], offsets, *rest)


def nearest_of(
    rows: RowNumbers,
    distances: npt.NDArray[np.float64],
    k: int,
    max_per: tuple[str, int] | None,
    reader: RowReader,
) -> npt.NDArray[np.intp]:
    """Positions of the k nearest of rows (m,) in rank order, so many of a slide or patient."""

    def groups(some: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        return reader.groups(rows[some], kind, {})

    kind, per_group = max_per or ("", 0)
    return nearest(
        distances,
        k,
        lambda tied: reader.tie_keys(rows[tied]),
        None if max_per is None else groups,
        per_group,
    )


def _nothing(radii: npt.NDArray[np.int64]) -> FoundMany:
    count = len(radii)
    return FoundMany(
        np.zeros(0, np.int64),
        np.zeros(0),
        np.zeros(count + 1, np.int64),
        radii,
        np.zeros(count, np.int64),
        np.zeros(count, bool),
        np.zeros((count, len(Work._fields)), np.int64),
    )
