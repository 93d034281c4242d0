"""The paper's way: scikit-learn's BallTree over the codes, then SciPy's k-d tree over the ball."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from exact import Codebook, Neighbourhood, ranking_recall
from scipy.spatial import cKDTree
from sklearn.neighbors import BallTree
from timing import Contender

_CHECKED = 10


def ball_tree_and_kd_tree(
    book: Codebook, near: Neighbourhood, radius: int, k: int
) -> dict[str, Contender]:
    """Both stages, one by one and with one look into the tree for all; checked as everyone's."""
    tree = BallTree(np.unpackbits(book.codes, axis=1), metric="hamming")
    queries = np.unpackbits(book.queries, axis=1)
    features = np.asarray(near.features, np.float32)
    targets = np.asarray(near.queries, np.float32)
    # scikit-learn's distance is a share of the bits.
    share = (radius + 0.5) / book.bits

    def rank(query: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not len(rows):
            return np.asarray(rows, np.int64)
        places = cKDTree(features[rows]).query(targets[query], min(k, len(rows)))[1]
        return np.asarray(rows[np.atleast_1d(places)], np.int64)

    def one_by_one(count: int) -> list[npt.NDArray[np.int64]]:
        each = range(count)
        return [rank(q, tree.query_radius(queries[q : q + 1], share)[0]) for q in each]

    def batch(count: int) -> list[npt.NDArray[np.int64]]:
        return list(map(rank, range(count), tree.query_radius(queries[:count], share)))

    contenders = {}
    for mode, run in (("one", one_by_one), ("batch", batch)):
        found = run(_CHECKED)
        recall = ranking_recall(
            near, k, lambda query: book.ball(query, radius)[0], found.__getitem__, _CHECKED
        )
        name = "scikit-learn BallTree + SciPy cKDTree"
        contenders[mode] = Contender(name, run, recall == 1, recall)
    return contenders
