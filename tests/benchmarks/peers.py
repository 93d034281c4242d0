"""How other libraries' indexes are asked and timed; usearch and Annoy over codes or features."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

BATCH = 256  # queries: faiss has other ways, and fewer threads, for fewer

Queries = npt.NDArray[Any]


@dataclass(frozen=True)
class Built:
    """One index: ``search(queries)`` gives the rows (Q, k) of a batch; ``size`` is in bytes."""

    name: str
    search: Callable[[Queries], Any]
    size: float
    exact: bool = False


def answer_all(
    search: Callable[[Any], Any], queries: Queries, mode: str, threads: int
) -> Callable[[int], None]:
    """Run a batch search over the first queries, all at once or one by one.

    faiss shares queries out among threads: for one of them a second thread is in the way.
    """
    singles = [queries[number : number + 1] for number in range(len(queries))]

    def batch(count: int) -> None:
        faiss.omp_set_num_threads(threads)
        search(queries[:count])

    def one_by_one(count: int) -> None:
        faiss.omp_set_num_threads(1)
        for single in singles[:count]:
            search(single)

    return batch if mode == "batch" else one_by_one


def rows_of(index: Any, k: int) -> Callable[[Queries], Any]:
    """The search of a faiss index."""
    return lambda queries: index.search(queries, k)[1]


def usearch(values: Queries, k: int, threads: int, **settings: Any) -> Built:
    """A graph by usearch; ``settings`` are its own."""
    from usearch.index import Index

    index = Index(connectivity=16, expansion_add=100, expansion_search=64, **settings)
    index.add(np.arange(len(values)), values, threads=threads)

    def search(queries: Queries) -> Any:
        several = threads if len(queries) > 1 else 1
        keys = index.search(queries, k, threads=several).keys
        return np.asarray(keys).astype(np.int64).reshape(len(queries), -1)

    return Built("usearch 16, ef 64", search, index.serialized_length)


def annoy(values: Queries, k: int, metric: str, prepared: Callable[[Queries], list[Any]]) -> Built:
    """Twenty trees by Annoy; ``prepared`` makes its vectors of rows of ``values``."""
    from annoy import AnnoyIndex

    vectors = prepared(values)
    index = AnnoyIndex(len(vectors[0]), metric)
    index.set_seed(1)
    for row, vector in enumerate(vectors):
        index.add_item(row, vector)
    index.build(20)

    def search(queries: Queries) -> list[Any]:
        return [np.array(index.get_nns_by_vector(v, k), np.int64) for v in prepared(queries)]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "index.ann"
        index.save(str(file))
        size = file.stat().st_size  # mapped from now on, also when the file is gone
    return Built("annoy, 20 trees", search, size)
