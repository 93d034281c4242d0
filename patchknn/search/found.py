"""What a search found, by number of row: of one query, and of many as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.search.rows import RowNumbers
from patchknn.search.work import Work

_NO_BALL = -1


class Found(NamedTuple):
    """The rows (m,) of one query in rank order, m ≤ k, and how they were found.

    ``distances`` (m,) float64 are L2; ``radius`` in bits, None where no Hamming ball chose them;
    ``ball`` counts the rows that were ranked; ``work`` says what that took.
    """

    rows: RowNumbers
    distances: npt.NDArray[np.float64]
    radius: int | None
    ball: int
    widened: bool
    work: Work


class FoundMany:
    """The same of Q queries; ``found[q]``, and each when it is walked through, is a Found.

    ``rows`` (T,) int64 and ``distances`` (T,) float64 are those of all queries, one after the
    other: of query q from ``offsets[q]`` to ``offsets[q + 1]``, ``offsets`` (Q + 1,) int64.
    ``radii`` (Q,) int64, -1 where no ball chose them; ``balls`` (Q,) int64, ``widened`` (Q,) bool
    and ``work`` (Q, 6) int64 as Found has them.
    """

    def __init__(  # noqa: PLR0917
        self,
        rows: RowNumbers,
        distances: npt.NDArray[np.float64],
        offsets: npt.NDArray[np.int64],
        radii: npt.NDArray[np.int64],
        balls: npt.NDArray[np.int64],
        widened: npt.NDArray[np.bool_],
        work: npt.NDArray[np.int64],
    ) -> None:
        self.rows = rows
        self.distances = distances
        self.offsets = offsets
        self.radii = radii
        self.balls = balls
        self.widened = widened
        self.work = work

    @classmethod
    def of(cls, found: Sequence[Found]) -> FoundMany:
        """Several Found as one."""
        lengths = [len(one.rows) for one in found]
        radii = [_NO_BALL if one.radius is None else one.radius for one in found]
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(one.rows for one in found)]),
            np.concatenate([np.zeros(0), *(one.distances for one in found)]),
            np.cumsum([0, *lengths], dtype=np.int64),
            np.array(radii, np.int64),
            np.array([one.ball for one in found], np.int64),
            np.array([one.widened for one in found], bool),
            np.array([one.work for one in found], np.int64).reshape(-1, len(Work._fields)),
        )

    def beside(self, other: FoundMany, k: int) -> FoundMany:
        """What the same queries found here and among other rows: each one's k nearest, and ties."""
        lengths = np.diff(self.offsets) + np.diff(other.offsets)
        queries = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        others = np.repeat(np.arange(len(other)), np.diff(other.offsets))
        distances = np.concatenate([self.distances, other.distances])
        order = np.lexsort((distances, np.concatenate([queries, others])))
        rows, distances = np.concatenate([self.rows, other.rows])[order], distances[order]
        offsets = np.append(0, np.cumsum(lengths))
        # A query that has fewer keeps them all.
        enough = lengths >= k
        furthest = np.full(len(self), np.inf)
        furthest[enough] = distances[offsets[:-1][enough] + k - 1]
        kept = distances <= np.repeat(furthest, lengths)
        work = self.work + other.work
        work[:, 0] = other.work[:, 0]
        return FoundMany(
            rows[kept],
            distances[kept],
            np.append(0, np.cumsum(kept))[offsets],
            self.radii,
            self.balls + other.balls,
            self.widened | other.widened,
            work,
        )

    def chosen(self, keep: npt.NDArray[np.bool_]) -> FoundMany:
        """Those of the queries where ``keep`` (Q,) is true."""
        lengths = np.diff(self.offsets)
        rows = np.repeat(keep, lengths)
        return FoundMany(
            self.rows[rows],
            self.distances[rows],
            np.append(0, np.cumsum(lengths[keep])),
            self.radii[keep],
            self.balls[keep],
            self.widened[keep],
            self.work[keep],
        )

    def __len__(self) -> int:
        return len(self.radii)

    def __getitem__(self, query: int) -> Found:
        query = range(len(self))[query]
        start, stop = self.offsets[query], self.offsets[query + 1]
        radius = int(self.radii[query])
        return Found(
            self.rows[start:stop],
            self.distances[start:stop],
            None if radius == _NO_BALL else radius,
            int(self.balls[query]),
            bool(self.widened[query]),
            Work(*self.work[query].tolist()),
        )

    def __iter__(self) -> Iterator[Found]:
        return map(self.__getitem__, range(len(self)))
