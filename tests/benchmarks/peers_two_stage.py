"""The two stages as others do them: a faiss binary index for the ball, then L2 in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from exact import Codebook, Neighbourhood, ranking_recall
from peers import BATCH, answer_all
from peers_ball import Balls, Search
from timing import Contender, serious

_CHECKED = 10
_BLOCK = 50  # queries whose balls fit in memory together

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Rank = Callable[[Floats, list[Rows], int], list[Rows]]  # the k nearest of each query's rows


class Pipelines:
    """A faiss binary index for the ball, and every usual way to rank it in float32."""

    def __init__(self, book: Codebook, near: Neighbourhood, threads: int, trial_s: float) -> None:
        self._book = book
        self._near = near
        self._balls = Balls(book, threads, trial_s)
        self._threads = threads
        self._trial_s = trial_s
        self.features: Floats = np.ascontiguousarray(near.features, np.float32)
        self._queries: Floats = np.ascontiguousarray(near.queries, np.float32)
        self._flat = faiss.IndexFlatL2(self.features.shape[1])
        self._flat.add(self.features)

    def contenders(self, radius: int, k: int, mode: str) -> list[Contender]:
        """The fastest binary index with each way to rank; checked against brute force."""
        ball = self._balls.best(radius)
        result = []
        # Indexes of codes are small beside the features in float32.
        size = 4 * self.features.shape[1]
        for way in (self._by_numpy, self._by_knn, self._in_place):
            answer = self._one_by_one if mode == "one" else self._batch
            found = answer(ball.search, way, k, _CHECKED)
            recall = ranking_recall(
                self._near,
                k,
                lambda query: self._book.ball(query, radius)[0],
                found.__getitem__,
                _CHECKED,
            )
            run = partial(answer, ball.search, way, k)
            name = f"faiss {ball.name} + {_WAYS[way.__name__]}"
            least = _BLOCK if mode == "batch" else 4
            result.append(Contender(name, run, recall == 1, recall, size, least))
        return serious(result, len(self._queries), self._trial_s)

    def all_rows(self, k: int, mode: str) -> Contender:
        """IndexFlatL2: the nearest of all rows, which is another question; no recall is given."""

        def search(queries: Floats) -> Any:
            return self._flat.search(queries, k)

        run = answer_all(search, self._queries, mode, self._threads)
        size = 4 * self.features.shape[1]
        name, least = "faiss IndexFlatL2, all rows", BATCH if mode == "batch" else 4
        return Contender(name, run, recall=None, bytes_per_row=size, at_least=least)

    def _one_by_one(self, search: Search, rank: Rank, k: int, count: int) -> list[Rows]:
        faiss.omp_set_num_threads(1)
        found = []
        for query in range(count):
            rows = search(self._book.queries[query : query + 1])[2]
            found += rank(self._queries[query : query + 1], [rows], k)
        return found

    def _batch(self, search: Search, rank: Rank, k: int, count: int) -> list[Rows]:
        found = []
        for first in range(0, count, _BLOCK):
            last = min(first + _BLOCK, count)
            faiss.omp_set_num_threads(self._threads)
            lims, _, rows = search(self._book.queries[first:last])
            own = [rows[low:high] for low, high in pairwise(lims.astype(np.int64).tolist())]
            found += rank(self._queries[first:last], own, k)
        return found

    def _by_numpy(self, queries: Floats, balls: list[Rows], k: int) -> list[Rows]:
        found = []
        for query, rows in zip(queries, balls, strict=True):
            difference = self.features[rows] - query
            found.append(_nearest(np.einsum("nd,nd->n", difference, difference), rows, k))
        return found

    def _by_knn(self, queries: Floats, balls: list[Rows], k: int) -> list[Rows]:
        faiss.omp_set_num_threads(1)  # two were slower for one query
        found = []
        for number, rows in enumerate(balls):
            query, count = queries[number : number + 1], min(k, len(rows))
            near = faiss.knn(query, self.features[rows], count)[1][0] if count else slice(0)
            found.append(rows[near])
        return found

    def _in_place(self, queries: Floats, balls: list[Rows], k: int) -> list[Rows]:
        """Without a copy of the features; balls of a batch are padded to equal length."""
        longest = max(map(len, balls))
        if not longest:
            return balls
        labels = np.full((len(balls), longest), -1, np.int64)
        for line, rows in zip(labels, balls, strict=True):
            line[: len(rows)] = rows
        distances = np.empty(labels.shape, np.float32)
        self._flat.compute_distance_subset(
            len(balls),
            faiss.swig_ptr(queries),
            longest,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(labels),
        )
        return [
            _nearest(line[: len(rows)], rows, k)
            for line, rows in zip(distances, balls, strict=True)
        ]


_WAYS = {
    "_by_numpy": "NumPy",
    "_by_knn": "faiss.knn",
    "_in_place": "compute_distance_subset",
}


def _nearest(distances: Floats, rows: Rows, k: int) -> Rows:
    if k < len(rows):
        chosen = np.argpartition(distances, k)[:k]
        distances, rows = distances[chosen], rows[chosen]
    return rows[np.argsort(distances)]
