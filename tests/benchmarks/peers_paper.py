"""The paper's way: scikit-learn's BallTree over the codes, then SciPy's k-d tree over the ball."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from exact import Codebook, Neighbourhood, ranking_recall
from scipy.spatial import cKDTree
from sklearn.neighbors import BallTree
from timing import Contender

_CHECKED = 10


def ball_tree_and_kd_tree(
    book: Codebook, near: Neighbourhood, radius: int, k: int
) -> list[Contender]:
    """Both stages, one query after the other; checked against brute force."""
    tree = BallTree(np.unpackbits(book.codes, axis=1), metric="hamming")
    queries = np.unpackbits(book.queries, axis=1)
    features = np.asarray(near.features, np.float32)
    targets = np.asarray(near.queries, np.float32)
    # scikit-learn's distance is a share of the bits.
    share = (radius + 0.5) / book.bits

    def find(query: int) -> npt.NDArray[np.int64]:
        rows = tree.query_radius(queries[query : query + 1], share)[0]
        if not len(rows):
            return np.asarray(rows, np.int64)
        places = cKDTree(features[rows]).query(targets[query], min(k, len(rows)))[1]
        return np.asarray(rows[np.atleast_1d(places)], np.int64)

    recall = ranking_recall(near, k, lambda query: book.ball(query, radius)[0], find, _CHECKED)
    name = "scikit-learn BallTree + SciPy cKDTree"
    return [Contender(name, _each(find), recall == 1, recall)]


def _each(find: Callable[[int], object]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for query in range(count):
            find(query)

    return run
