"""Brute force in NumPy: the oracle for everyone's results, and the NumPy method to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.hamming.packing import words

Codes = npt.NDArray[np.uint8]
Found = tuple[npt.NDArray[np.int64], npt.NDArray[Any]]


class Codebook:
    """codes (n, K/8) in the order of an archive's rows, K ≤ 64; queries (Q, K/8)."""

    def __init__(self, codes: Codes, queries: Codes) -> None:
        if codes.shape[1] > 8:
            message = "the oracle knows codes of one word"
            raise ValueError(message)
        self.codes = codes
        self.queries = queries
        self.bits = 8 * codes.shape[1]
        self._words = words(codes)[:, 0]
        self._targets = words(queries)[:, 0]
        self._balls: dict[tuple[int, int], Found] = {}

    def distances(self, query: int) -> npt.NDArray[np.uint8]:
        """(n,) Hamming distances to a query."""
        distances: npt.NDArray[np.uint8] = np.bitwise_count(self._words ^ self._targets[query])
        return distances

    def ball(self, query: int, radius: int) -> Found:
        """Rows within the radius, ascending, and their distances."""
        if (query, radius) not in self._balls:
            distances = self.distances(query)
            rows = np.flatnonzero(distances <= radius)
            self._balls[query, radius] = rows, distances[rows]
        return self._balls[query, radius]


def ball_recall(book: Codebook, radius: int, find: Callable[[int], Found], checked: int) -> float:
    """The share of the rows in the balls that ``find(query)`` gives.

    Raises ValueError where it gives a row twice, or one that is not in the ball, or a wrong
    distance.
    """
    wanted = given = 0
    for query in range(min(checked, len(book.queries))):
        rows, distances = book.ball(query, radius)
        found, at = (np.asarray(part) for part in find(query))
        order = np.argsort(found)
        found, at = found[order], at[order]
        places = np.searchsorted(rows, found).clip(0, max(len(rows) - 1, 0))
        wrong = len(np.unique(found)) != len(found) or (
            len(found) and not (len(rows) and np.array_equal(rows[places], found))
        )
        if wrong or not np.array_equal(distances[places] if len(found) else at, at):
            message = f"query {query} has a row in its ball that is not there, or twice"
            raise ValueError(message)
        wanted, given = wanted + len(rows), given + len(found)
    return given / wanted if wanted else 1.0


def nearest_recall(
    book: Codebook, k: int, find: Callable[[int], npt.NDArray[np.int64]], checked: int
) -> float:
    """The share of rows given that are as near in Hamming as the k-th nearest, of k."""
    good = 0
    checked = min(checked, len(book.queries))
    for query in range(checked):
        distances = book.distances(query)
        bound = np.partition(distances, k - 1)[k - 1]
        rows = np.unique(find(query))
        good += min(int((distances[rows[rows >= 0]] <= bound).sum()), k)
    return good / (k * checked)


@dataclass(frozen=True)
class Neighbourhood:
    """features (n, D) by row, and queries (Q, D): the L2 side of the oracle."""

    features: npt.NDArray[Any]
    queries: npt.NDArray[Any]

    def distances(self, query: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Exact L2 distances of some rows to a query, in float64."""
        result = np.empty(len(rows))
        target = self.queries[query].astype(np.float64)
        for first in range(0, len(rows), 50_000):
            chosen = rows[first : first + 50_000]
            difference = self.features[chosen].astype(np.float64) - target
            result[first : first + 50_000] = np.sqrt(np.square(difference).sum(axis=1))
        return result


def ranking_recall(
    near: Neighbourhood,
    k: int,
    pool: Callable[[int], npt.NDArray[np.int64]],
    find: Callable[[int], npt.NDArray[np.int64]],
    checked: int,
) -> float:
    """The share of the k nearest rows of a pool (fewer where it has fewer) that are given.

    Raises ValueError where more are given than there are, or one of them twice.
    """
    wanted = good = 0
    for query in range(min(checked, len(near.queries))):
        rows = pool(query)
        found = np.asarray(find(query))
        found = found[found >= 0]
        count = min(k, len(rows))
        if len(found) > count or len(np.unique(found)) != len(found):
            message = f"query {query} has {len(found)} neighbours of {count}, or one twice"
            raise ValueError(message)
        wanted += count
        if count == 0:
            continue
        distances = near.distances(query, rows)
        bound = np.partition(distances, count - 1)[count - 1]
        # float32 rankings may swap what differs in the seventh digit; that is no miss.
        good += int((near.distances(query, found) <= bound * (1 + 1e-6)).sum())
    return good / wanted if wanted else 1.0
