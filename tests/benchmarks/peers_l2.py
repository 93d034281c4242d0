"""The others on another question, the nearest of all rows by L2: exact and approximate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from exact import Neighbourhood, ranking_recall
from peers import BATCH, Built, annoy, answer_all, rows_of, usearch
from timing import Contender

_CHECKED = 10

Floats = npt.NDArray[np.float32]


def contenders(near: Neighbourhood, k: int, threads: int) -> dict[str, list[Contender]]:
    """By mode; every recall is against brute force over all rows."""
    features = np.ascontiguousarray(near.features, np.float32)
    queries = np.ascontiguousarray(near.queries, np.float32)
    result: dict[str, list[Contender]] = {"one": [], "batch": []}
    for built in _indexes(features, k, threads):
        recall = _recall(near, queries, k, built)
        for mode, some in result.items():
            run = answer_all(built.search, queries, mode, threads)
            exact, size = built.exact and recall == 1, built.size / len(features)
            least = BATCH if mode == "batch" else 4
            some.append(Contender(built.name, run, exact, recall, size, least))
    return result


def _recall(near: Neighbourhood, queries: Floats, k: int, built: Built) -> float:
    everything = np.arange(len(near.features))

    def find(query: int) -> npt.NDArray[np.int64]:
        rows: npt.NDArray[np.int64] = built.search(queries[query : query + 1])[0]
        return rows

    checked = _CHECKED if built.exact else 5 * _CHECKED
    return ranking_recall(near, k, lambda query: everything, find, checked)


def _indexes(features: Floats, k: int, threads: int) -> Iterator[Built]:
    dim = features.shape[1]
    flat = faiss.IndexFlatL2(dim)
    flat.add(features)
    yield Built("faiss IndexFlatL2", rows_of(flat, k), features.nbytes, exact=True)
    lists = max(1, len(features) // 250)
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, lists)
    inverted.train(features[:: max(1, len(features) // (40 * lists))])
    inverted.add(features)
    inverted.nprobe = 16
    yield Built(f"faiss IndexIVFFlat {lists}, 16 probed", rows_of(inverted, k), _bytes(inverted))
    graph = faiss.IndexHNSWFlat(dim, 16)
    graph.hnsw.efConstruction = 100
    graph.add(features)
    graph.hnsw.efSearch = 64
    yield Built("faiss HNSW 16, ef 64", rows_of(graph, k), _bytes(graph))
    yield _hnswlib(features, k, threads)
    yield usearch(features, k, threads, ndim=dim, metric="l2sq")
    yield annoy(features, k, "euclidean", list)


def _bytes(index: Any) -> int:
    return len(faiss.serialize_index(index))


def _hnswlib(features: Floats, k: int, threads: int) -> Built:
    import hnswlib

    index = hnswlib.Index("l2", features.shape[1])
    index.init_index(len(features), ef_construction=100, M=16, random_seed=1)
    index.add_items(features, num_threads=threads)
    index.set_ef(64)

    def search(queries: Floats) -> Any:
        several = threads if len(queries) > 1 else 1
        return index.knn_query(queries, k, num_threads=several)[0].astype(np.int64)

    return Built("hnswlib 16, ef 64", search, index.index_file_size())
