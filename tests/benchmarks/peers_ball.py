"""faiss's exact answers to the first stage: every row within a Hamming radius."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from exact import Codebook, Found, ball_recall
from peers import BATCH, answer_all
from timing import Contender, fastest, serious

_CHECKED = 20
_MAX_LOOKUPS = 20_000  # per query; more costs more than reading everything
_HASH_BITS = (12, 16, 20, 24, 28)
_MULTI = {64: ((4, 16), (3, 21), (2, 32)), 48: ((3, 16), (4, 12), (2, 24))}

Codes = npt.NDArray[np.uint8]
Search = Callable[[Codes], tuple[Any, Any, Any]]  # lims, distances, rows of a batch


@dataclass(frozen=True)
class Ranged:
    """One index at one setting, and its range search for one radius."""

    family: str
    setting: str
    index: Any
    search: Search

    @property
    def name(self) -> str:
        """Both in words."""
        return f"{self.family} {self.setting}".rstrip()


class Balls:
    """Everyone's exact balls over one set of codes; what is built is kept for the next radius."""

    def __init__(self, book: Codebook, threads: int, trial_s: float) -> None:
        self.book = book
        self._threads = threads
        self._trial_s = trial_s
        self._built: dict[str, Any] = {}

    def contenders(self, radius: int, mode: str) -> list[Contender]:
        """The best setting of each family, all checked against brute force."""
        families: dict[str, list[Contender]] = {}
        indexes, queries = {}, self.book.queries
        for ranged in self._exact(radius):
            recall = ball_recall(self.book, radius, _one_ball(ranged.search, queries), _CHECKED)
            run = answer_all(ranged.search, queries, mode, self._threads)
            least = BATCH if mode == "batch" else 4
            contender = Contender(f"faiss {ranged.name}", run, recall == 1, recall, at_least=least)
            families.setdefault(ranged.family, []).append(contender)
            indexes[contender.method] = ranged.index
        best = [
            fastest(serious(settings, len(queries), self._trial_s), len(queries), self._trial_s)
            for settings in families.values()
        ]
        n = len(self.book.codes)
        return [replace(one, bytes_per_row=_bytes(indexes[one.method]) / n) for one in best]

    def best(self, radius: int) -> Ranged:
        """The fastest one by one: what a pipeline would start with."""
        queries = self.book.queries
        everyone = {ranged.name: ranged for ranged in self._exact(radius)}
        trials = [
            Contender(name, answer_all(ranged.search, queries, "one", 1))
            for name, ranged in everyone.items()
        ]
        return everyone[fastest(trials, len(queries), self._trial_s).method]

    def _exact(self, radius: int) -> Iterator[Ranged]:
        """Every setting that is exact and affordable."""
        bits = self.book.bits
        flat = self._index("flat", lambda: faiss.IndexBinaryFlat(bits))
        yield Ranged("IndexBinaryFlat", "", flat, _within(flat, radius))
        for width in _HASH_BITS:
            if _ball_size(width, radius) <= _MAX_LOOKUPS:
                index = self._index(f"{width}", lambda w=width: faiss.IndexBinaryHash(bits, w))
                # Codes within the radius differ by no more than that in their first bits.
                search = _within(index, radius, radius)
                yield Ranged("IndexBinaryHash", f"b={width}", index, search)
        for tables, width in _MULTI.get(bits, ()):
            # Of a code within the radius one part differs by no more than an equal share.
            flips = radius // tables
            if tables * _ball_size(width, flips) <= _MAX_LOOKUPS:
                name = f"{tables}×{width}"
                index = self._index(
                    name, lambda t=tables, w=width: faiss.IndexBinaryMultiHash(bits, t, w)
                )
                search = _within(index, radius, flips)
                yield Ranged("IndexBinaryMultiHash", name, index, search)

    def _index(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._built:
            self._built[name] = make()
            self._built[name].add(self.book.codes)
        return self._built[name]


def _bytes(index: Any) -> int:
    return len(faiss.serialize_index_binary(index))


def _within(index: Any, radius: int, flips: int | None = None) -> Search:
    def search(queries: Codes) -> tuple[Any, Any, Any]:
        if flips is not None:
            index.nflip = flips
        lims, distances, rows = index.range_search(queries, radius + 1)  # it means "less than"
        return lims, distances, rows

    return search


def _ball_size(bits: int, radius: int) -> int:
    return sum(comb(bits, flips) for flips in range(radius + 1))


def _one_ball(search: Search, queries: Codes) -> Callable[[int], Found]:
    def find(query: int) -> Found:
        _, distances, rows = search(queries[query : query + 1])
        return rows, distances

    return find
