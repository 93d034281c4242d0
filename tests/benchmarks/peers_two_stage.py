"""The two stages as others do them: a faiss binary index for the ball, then L2 in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from exact import Codebook, Neighbourhood, ranking_recall
from peers import answer_all
from peers_ball import Balls, Search
from timing import Contender

_CHECKED = 10

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Rank = Callable[[Floats, Rows, int], Rows]  # query (D,), rows, k → the k nearest of them


class Pipelines:
    """A faiss binary index for the ball, and every usual way to rank it in float32."""

    def __init__(self, book: Codebook, near: Neighbourhood, threads: int, trial_s: float) -> None:
        self._book = book
        self._near = near
        self._balls = Balls(book, threads, trial_s)
        self._threads = threads
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
        for way, rank in self._ways():
            find = self._finder(ball.search, rank, k)
            recall = ranking_recall(
                self._near, k, lambda query: self._book.ball(query, radius)[0], find, _CHECKED
            )
            run = self._runner(ball.search, rank, k, mode)
            result.append(Contender(f"faiss {ball.name} + {way}", run, recall == 1, recall, size))
        return result

    def all_rows(self, k: int, mode: str) -> Contender:
        """IndexFlatL2: the nearest of all rows, which is another question; no recall is given."""

        def search(queries: Floats) -> Any:
            return self._flat.search(queries, k)

        run = answer_all(search, self._queries, mode, self._threads)
        size = 4 * self.features.shape[1]
        return Contender("faiss IndexFlatL2, all rows", run, recall=None, bytes_per_row=size)

    def _ways(self) -> Iterator[tuple[str, Rank]]:
        yield "NumPy", self._by_numpy
        yield "faiss.knn", self._by_knn
        yield "compute_distance_subset", self._in_place

    def _by_numpy(self, query: Floats, rows: Rows, k: int) -> Rows:
        difference = self.features[rows] - query
        distances = np.einsum("nd,nd->n", difference, difference)
        nearest = np.argpartition(distances, k)[:k] if k < len(rows) else np.arange(len(rows))
        return rows[nearest[np.argsort(distances[nearest])]]

    def _by_knn(self, query: Floats, rows: Rows, k: int) -> Rows:
        return rows[faiss.knn(query[None], self.features[rows], min(k, len(rows)))[1][0]]

    def _in_place(self, query: Floats, rows: Rows, k: int) -> Rows:
        distances = np.empty(len(rows), np.float32)
        labels = np.ascontiguousarray(rows, np.int64)
        self._flat.compute_distance_subset(
            1,
            faiss.swig_ptr(query),
            len(rows),
            faiss.swig_ptr(distances),
            faiss.swig_ptr(labels),
        )
        nearest = np.argpartition(distances, k)[:k] if k < len(rows) else np.arange(len(rows))
        return rows[nearest[np.argsort(distances[nearest])]]

    def _finder(self, search: Search, rank: Rank, k: int) -> Callable[[int], Rows]:
        def find(query: int) -> Rows:
            rows = search(self._book.queries[query : query + 1])[2]
            return rank(self._queries[query], rows, k) if len(rows) else rows

        return find

    def _runner(self, search: Search, rank: Rank, k: int, mode: str) -> Callable[[int], None]:
        find, block = self._finder(search, rank, k), 100  # a block's balls fit in memory

        def one_by_one(count: int) -> None:
            faiss.omp_set_num_threads(1)
            for query in range(count):
                find(query)

        def batch(count: int) -> None:
            faiss.omp_set_num_threads(self._threads)
            for first in range(0, count, block):
                last = min(first + block, count)
                lims, _, rows = search(self._book.queries[first:last])
                for query in range(first, last):
                    own = rows[int(lims[query - first]) : int(lims[query - first + 1])]
                    if len(own):
                        rank(self._queries[query], own, k)

        return batch if mode == "batch" else one_by_one
