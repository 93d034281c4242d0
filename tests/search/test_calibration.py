import numpy as np
import pytest
from scipy.special import softmax

from patchknn.archive.calibration import ISOTONIC, TEMPERATURE, ConfidenceMap
from patchknn.search.calibration import (
    calibrated_confidences,
    prediction_sets,
    tempered,
)
from patchknn.search.class_scores import Voting, class_probabilities, class_scores

PRIORS = np.array([0.5, 0.25, 0.25])


@pytest.fixture
def voting() -> Voting:
    return Voting(
        np.array([[0, 0, 1], [2, -1, 2], [-1, -1, -2]]),
        np.array([[0.5, 1.0, 1.5], [0.1, 0.2, 0.3], [1.0, 1.0, np.nan]]),
        np.array([1.0, 2.0, 1.0]),
        np.array([0, 2, -1]),
    )


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0])
def test_tempered_is_softmax_of_logarithms(temperature: float) -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        expected = softmax(np.log(probabilities) / temperature, axis=1)
    np.testing.assert_allclose(tempered(probabilities, temperature), expected, atol=1e-15)


def test_temperature_of_one_leaves_probabilities(voting: Voting) -> None:
    found = calibrated_confidences(ConfidenceMap(TEMPERATURE, 1.0), voting, PRIORS)
    likely = class_probabilities(voting, PRIORS)
    np.testing.assert_allclose(found, [likely[0, 0], likely[1, 2], np.nan])


def test_isotonic_is_read_off_the_weighted_confidence(voting: Voting) -> None:
    weighted = class_scores(voting, 3)[[0, 1], [0, 2]]
    mapping = ConfidenceMap(ISOTONIC, knots=((0.0, 0.1), (1.0, 0.5)))
    found = calibrated_confidences(mapping, voting, PRIORS)
    np.testing.assert_allclose(found, [*(0.1 + 0.4 * weighted), np.nan])


def test_sets_hold_what_is_probable_enough() -> None:
    probabilities = np.array([[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]])
    np.testing.assert_array_equal(prediction_sets(probabilities, 0.75), [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(prediction_sets(probabilities, 0.5), [[1, 0, 0], [0, 0, 1]])
    assert prediction_sets(probabilities, None).all()
