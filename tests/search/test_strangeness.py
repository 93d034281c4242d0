import numpy as np
import pytest

from patchknn.archive.calibration import Calibration
from patchknn.search.class_scores import Voting
from patchknn.search.strangeness import (
    Distances,
    neighbour_distances,
    out_of_distribution,
    strangeness,
)


def calibration(**given: object) -> Calibration:
    fields = dict.fromkeys(Calibration._fields)
    return Calibration(**(fields | {"nearest_limit": 2.0, "short": 0.0} | given))


def test_distances_are_relative_to_the_length_of_the_query() -> None:
    distances = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, np.nan], [np.nan] * 3])
    voting = Voting(np.zeros((3, 3), int), distances, np.array([2.0, 1.5, 1.0]), np.zeros(3, int))
    found = neighbour_distances(voting)
    np.testing.assert_array_equal(found.nearest, [0.5, 0, np.nan])
    np.testing.assert_array_equal(found.kth, [2, np.nan, np.nan])


@pytest.mark.parametrize(
    ("nearest", "kth", "short", "score", "out"),
    [
        (1.0, 9.0, 0.0, 0.5, False),
        (2.0, 9.0, 0.0, 1.0, False),
        (3.0, 9.0, 0.0, 1.5, True),
        (1.0, np.nan, 0.0, 0.5, True),  # fewer than k, which happens to none of its own
        (1.0, np.nan, 0.2, 0.5, False),  # … and to one in five of them
        (3.0, np.nan, 0.2, 1.5, True),
        (np.nan, np.nan, 0.2, np.inf, True),
    ],
)
def test_what_is_strange(nearest: float, kth: float, short: float, score: float, out: bool) -> None:
    distances = Distances(np.array([nearest]), np.array([kth]))
    made = calibration(short=short)
    assert strangeness(made, distances).tolist() == [score]
    assert out_of_distribution(made, distances).tolist() == [out]


def test_a_limit_that_is_nothing_or_infinite() -> None:
    distances = Distances(np.array([0.0, 0.1, np.nan]), np.array([1.0, 1.0, np.nan]))
    assert strangeness(calibration(nearest_limit=0.0), distances).tolist() == [0, np.inf, np.inf]
    assert strangeness(calibration(nearest_limit=None), distances).tolist() == [0, 0, np.inf]
