"""The others on the nearest codes: exact by faiss, approximate by everyone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from exact import Codebook, nearest_recall
from peers import BATCH, Built, annoy, answer_all, rows_of, usearch
from timing import Contender, fastest

_CHECKED = 20
_GRAPH_ROWS = 1_000_000  # what two cores make a graph of in reasonable time
_ANNOY_ROWS = 100_000


def contenders(book: Codebook, k: int, threads: int, trial_s: float) -> dict[str, list[Contender]]:
    """By mode: the k nearest rows in Hamming, checked against brute force."""
    result: dict[str, list[Contender]] = {"batch": [], "one": []}
    for settings in _indexes(book, k, threads):
        checked = [(built, _recall(book, k, built)) for built in settings]
        for mode, some in result.items():
            tried = [
                Contender(
                    built.name,
                    answer_all(built.search, book.queries, mode, threads),
                    built.exact and recall == 1,
                    recall,
                    built.size / len(book.codes),
                    BATCH if mode == "batch" else 4,
                )
                for built, recall in checked
            ]
            some.append(fastest(tried, len(book.queries), trial_s))
    return result


def _recall(book: Codebook, k: int, built: Built) -> float:
    def find(query: int) -> npt.NDArray[np.int64]:
        rows: npt.NDArray[np.int64] = built.search(book.queries[query : query + 1])[0]
        return rows

    return nearest_recall(book, k, find, _CHECKED if built.exact else 10 * _CHECKED)


def _indexes(book: Codebook, k: int, threads: int) -> Iterator[list[Built]]:
    """Each method at all of its settings."""
    yield [_flat(book, k, use_heap) for use_heap in (True, False)]
    yield [_inverted(book, k)]
    if len(book.codes) <= _GRAPH_ROWS:
        yield [usearch(book.codes, k, threads, ndim=book.bits, metric="hamming", dtype="b1")]
    if len(book.codes) <= _ANNOY_ROWS:
        yield [annoy(book.codes, k, "hamming", _bit_lists)]


def _flat(book: Codebook, k: int, use_heap: bool) -> Built:
    index = faiss.IndexBinaryFlat(book.bits)
    index.use_heap = use_heap
    index.add(book.codes)
    return Built("faiss IndexBinaryFlat", rows_of(index, k), book.codes.nbytes, exact=True)


def _inverted(book: Codebook, k: int) -> Built:
    lists = 1024 if len(book.codes) > 200_000 else 256
    index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(book.bits), book.bits, lists)
    index.train(book.codes[:: max(1, len(book.codes) // 50_000)])
    index.add(book.codes)
    index.nprobe = 16
    size = len(faiss.serialize_index_binary(index))
    return Built(f"faiss IndexBinaryIVF {lists}, 16 probed", rows_of(index, k), size)


def _bit_lists(codes: npt.NDArray[np.uint8]) -> list[Any]:
    values: list[Any] = np.unpackbits(codes, axis=1).tolist()
    return values
