"""patchknn's own methods, from code tables to whole answers, as contenders."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from exact import Codebook, Found, Neighbourhood, ball_recall, nearest_recall, ranking_recall
from peers import BATCH, answer_all
from timing import Contender

from patchknn.archive.snapshot import Snapshot
from patchknn.hamming import kernels
from patchknn.hamming.code_table import CodeArrays, CodeTable, Hits, build_parts
from patchknn.hamming.packing import words
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

_CHECKED = 20


class Table:
    """A code table over sorted codes, as an index segment holds it."""

    def __init__(self, book: Codebook, threads: int) -> None:
        self.book = book
        self.threads = threads
        keys = words(book.codes)
        first = np.ones(len(keys), bool)
        first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        starts = np.flatnonzero(first)
        distinct = np.ascontiguousarray(keys[starts])
        bounds = np.append(starts, len(keys)).astype(np.uint32)
        parts = build_parts(book.bits, distinct)
        self.arrays = CodeArrays(book.bits, distinct, bounds, parts)
        self.queries = words(book.queries)
        arrays = [distinct, bounds]
        for part in parts:
            arrays += [a for a in (part.bounds, part.order, part.window) if a is not None]
        self.bytes_per_row = sum(array.nbytes for array in arrays) / len(keys)
        self._table = CodeTable(self.arrays)
        self._numbers = np.empty(0, np.uint32)

    def ball(
        self, radius: int, mode: str, *, path: str | None = None, rows: bool = True, name: str = ""
    ) -> Contender:
        """Balls; ``rows``: every row and its distance, else distinct codes and theirs."""
        table, threads = self._table, self.threads if mode == "batch" else 1

        def search(queries: npt.NDArray[np.uint64]) -> Any:
            hits = table.ball(queries, radius, path=path, threads=threads)
            return self._expanded(hits) if rows else hits

        def find(query: int) -> Found:
            _, found, distances = self._expanded(
                table.ball(self.queries[query : query + 1], radius, path=path, threads=threads)
            )
            return found, distances

        recall = ball_recall(self.book, radius, find, _CHECKED)
        method = name or ("patchknn" if rows else "patchknn, distinct codes")
        run = answer_all(search, self.queries, mode, 1)
        least = BATCH if mode == "batch" else 4
        return Contender(method, run, recall == 1, recall, self.bytes_per_row, least)

    def nearest(self, k: int, mode: str) -> Contender:
        """The k nearest rows of each query, by distance."""
        table, threads = self._table, self.threads if mode == "batch" else 1

        def search(queries: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.uint32]]:
            hits, _ = table.nearest(queries, k, self.book.bits, threads=threads)
            return self._first(hits, k)

        recall = nearest_recall(
            self.book, k, lambda query: search(self.queries[query : query + 1])[0], _CHECKED
        )
        run = answer_all(search, self.queries, mode, 1)
        least = BATCH if mode == "batch" else 4
        return Contender("patchknn", run, recall == 1, recall, self.bytes_per_row, least)

    def _expanded(
        self, hits: Hits
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """Distinct codes → offsets (Q + 1,), rows and distances, as faiss gives them."""
        starts = self.arrays.bounds[hits.codes]
        lengths = self.arrays.bounds[hits.codes + np.uint32(1)] - starts
        ends = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=ends[1:])
        rows = np.repeat(starts - ends[:-1].astype(np.uint32), lengths)
        if len(self._numbers) < len(rows):
            self._numbers = np.arange(2 * len(rows), dtype=np.uint32)
        rows += self._numbers[: len(rows)]  # uint32 goes round, and comes out right
        return ends[hits.offsets], rows, np.repeat(hits.distances, lengths)

    def _first(self, hits: Hits, k: int) -> list[npt.NDArray[np.uint32]]:
        """The k nearest rows of each query, in order."""
        offsets, rows, distances = self._expanded(hits)
        lengths = np.diff(offsets)
        queries = np.repeat(np.arange(len(lengths), dtype=np.uint32) << 16, lengths)
        order = np.argsort(queries | distances, kind="stable")
        places = self._numbers[: len(rows)] - np.repeat(offsets[:-1].astype(np.uint32), lengths)
        chosen = rows[order[places < k]]
        return np.split(chosen, np.cumsum(np.minimum(lengths, k))[:-1])


class TwoStage:
    """A searcher over an archive, with the benchmark's queries."""

    def __init__(
        self, snapshot: Snapshot, book: Codebook, near: Neighbourhood, radius: int, k: int
    ) -> None:
        self._settings = SearchSettings(k=k, radius=radius, max_radius=radius, exclude_same="none")
        self._snapshot = snapshot
        self._book = book
        self._near = near
        self._radius = radius
        self._k = k
        self._queries = [
            Query(f"query {number}", feature, code=code)
            for number, (feature, code) in enumerate(zip(near.queries, book.queries, strict=True))
        ]
        self.bytes_per_row = folder_bytes(snapshot.path) / len(snapshot)

    def find(self, mode: str, threads: int, name: str = "patchknn") -> Contender:
        """The array level: rows and distances."""
        searcher = self._searcher(threads)
        features, codes = np.ascontiguousarray(self._near.queries), self._book.queries

        def one_by_one(count: int) -> None:
            for feature, code in zip(features[:count], codes[:count], strict=True):
                searcher.find(feature, code)

        def batch(count: int) -> None:
            searcher.find_many(features[:count], codes[:count])

        def found(query: int) -> npt.NDArray[np.int64]:
            return np.asarray(searcher.find(features[query], codes[query]).rows)

        def found_in_batch(query: int) -> npt.NDArray[np.int64]:
            return np.asarray(several[query].rows)

        several = searcher.find_many(features[:_CHECKED], codes[:_CHECKED])
        recall = self._recall(found if mode == "one" else found_in_batch)
        run = one_by_one if mode == "one" else batch
        least = 4 if mode == "one" else len(features)
        return Contender(name, run, recall == 1, recall, self.bytes_per_row, least)

    def answers(self, mode: str, threads: int) -> Contender:
        """Whole answers: neighbours with names, votes and a confidence."""
        searcher, name_of = self._searcher(threads), "patchknn, whole answers"

        def one_by_one(count: int) -> None:
            for query in self._queries[:count]:
                searcher.search(query)

        def batch(count: int) -> None:
            for _ in searcher.search_many(self._queries[:count]):
                pass

        def found(query: int) -> npt.NDArray[np.int64]:
            answer = searcher.search(self._queries[query])
            return np.array([neighbour.row for neighbour in answer.neighbours], np.int64)

        recall = self._recall(found)
        run = one_by_one if mode == "one" else batch
        least = 4 if mode == "one" else len(self._queries)
        return Contender(name_of, run, recall == 1, recall, self.bytes_per_row, least)

    def recall_of_all_rows(self) -> float:
        """The share of the nearest rows of all by L2 that the two stages give."""
        searcher, everything = self._searcher(1), np.arange(len(self._book.codes))

        def found(query: int) -> npt.NDArray[np.int64]:
            return np.asarray(
                searcher.find(self._near.queries[query], self._book.queries[query]).rows
            )

        return ranking_recall(self._near, self._k, lambda query: everything, found, 50)

    def _searcher(self, threads: int) -> Any:
        if "threads" in inspect.signature(Searcher).parameters:
            return Searcher(self._snapshot, self._settings, threads=threads)
        return Searcher(self._snapshot, self._settings)

    def _recall(self, find: Callable[[int], npt.NDArray[np.int64]]) -> float:
        def pool(query: int) -> npt.NDArray[np.int64]:
            return self._book.ball(query, self._radius)[0]

        return ranking_recall(self._near, self._k, pool, find, _CHECKED)


def folder_bytes(folder: Path) -> int:
    """What all files below take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def at_level(level: str, run: Callable[[int], None]) -> Callable[[int], None]:
    """The same under one level of kernels."""

    def run_at_level(count: int) -> None:
        with kernels.use(level):
            run(count)

    return run_at_level
