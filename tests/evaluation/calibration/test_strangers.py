import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from patchknn.evaluation.calibration.strangers import foreign_auroc, limits_of, own_distances
from patchknn.search.class_scores import Voting
from patchknn.search.strangeness import Distances, neighbour_distances


def test_limits_are_what_one_in_a_hundred_exceeds() -> None:
    generator = np.random.default_rng(0)
    nearest = generator.random(1000)
    kth = nearest + generator.random(1000)
    kth[:30] = np.nan
    found = limits_of(Distances(nearest, kth))
    assert found.nearest is not None
    assert 0.005 <= (nearest > found.nearest).mean() <= 0.01
    assert found.short == 0.03


def test_where_there_is_nothing_there_is_no_limit() -> None:
    missing, infinite = np.full(5, np.nan), np.full(5, np.inf)
    assert limits_of(Distances(missing, missing)) == (None, 1.0)
    assert limits_of(Distances(infinite, missing)).nearest is None
    told = own_distances(Distances(missing, infinite), np.full(5, -1))
    assert (
        told["nearest"] == told["kth"] == told["radius"] == {"p1": None, "p50": None, "p99": None}
    )


def test_own_distances_tell_of_the_radius_too() -> None:
    ones = np.ones(9)
    told = own_distances(Distances(ones, 2 * ones), np.arange(9))
    assert (told["nearest"]["p50"], told["kth"]["p99"], told["radius"]["p50"]) == (1, 2, 4)


def test_foreign_features_are_told_from_own_ones() -> None:
    """Clusters on a shell, and foreign ones elsewhere: the AUROC is scikit-learn's, and high."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(5, 16)) * 3
    archive, own = (centres[generator.integers(0, 5, n)] for n in (400, 100))
    archive, own = (x + generator.normal(size=x.shape) for x in (archive, own))
    foreign = generator.normal(size=(100, 16)) * 3 + 2
    search = NearestNeighbors(n_neighbors=10).fit(archive)
    nearest = []
    for asked in (own, foreign):
        distances, _ = search.kneighbors(asked)
        norms = np.linalg.norm(asked, axis=1)
        labels = np.zeros((100, 10), np.int64)
        voting = Voting(labels, distances, norms, np.zeros(100, np.int64))
        nearest.append(neighbour_distances(voting).nearest)
    found = foreign_auroc(*nearest)
    assert found == pytest.approx(roc_auc_score(np.arange(200) >= 100, np.concatenate(nearest)))
    assert found > 0.9
    limits = limits_of(Distances(nearest[0], nearest[0]))
    assert (nearest[1] > limits.nearest).mean() > 0.5
