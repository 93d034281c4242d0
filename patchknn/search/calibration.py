"""A stored calibration put to whole columns of votes: confidences, and sets of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.calibration import ISOTONIC, Calibration, ConfidenceMap
from patchknn.search.class_scores import Voting, class_probabilities, class_scores

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def calibrated_confidences(mapping: ConfidenceMap, voting: Voting, priors: Floats) -> Floats:
    """How probable each prediction (n,) is to be right, NaN without one.

    ``priors`` (C,) are those of the classes into which ``voting`` counts.
    """
    if mapping.method == ISOTONIC:
        x, y = np.array(mapping.knots).T
        found = np.interp(of_prediction(class_scores(voting, len(priors)), voting), x, y)
    else:
        assert mapping.temperature is not None
        probabilities = tempered(class_probabilities(voting, priors), mapping.temperature)
        found = of_prediction(probabilities, voting)
    return np.where(voting.predictions < 0, np.nan, found)


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """Distributions (n, C) over classes made flatter by a temperature above 1, steeper below it.

    Guo et al. 2017, of the logarithms of probabilities as logits.
    """
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def of_prediction(scores: Floats, voting: Voting) -> Floats:
    """Of scores (n, C) those (n,) of the predictions, 0 where there is none."""
    chosen = np.maximum(voting.predictions, 0)
    found = scores[np.arange(len(scores)), chosen]
    return np.where(voting.predictions < 0, 0.0, found)


def prediction_sets(probabilities: Floats, threshold: float | None) -> Flags:
    """Which classes (n, C) are in the set: those that are at least 1 − ``threshold`` probable.

    All of them where it is None. Ties are in.
    """
    if threshold is None:
        return np.ones(probabilities.shape, bool)
    return np.asarray(1 - probabilities <= threshold)


def padded_priors(calibration: Calibration, classes: tuple[str, ...]) -> npt.NDArray[Any]:
    """The priors (C,) of these classes, 0 of those that were not there when it was made."""
    return np.array([calibration.priors.get(name, 0.0) for name in classes], np.float64)
