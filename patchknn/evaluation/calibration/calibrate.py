"""What maps confidences to truer ones: fitted on some patients, judged on the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.calibration import ISOTONIC, TEMPERATURE, ConfidenceMap
from patchknn.evaluation.calibration.group_splits import folds_of
from patchknn.evaluation.calibration.isotonic import grouped, isotonic
from patchknn.evaluation.figures import metrics
from patchknn.evaluation.figures.confidence import accuracy_at, brier, ece_bias
from patchknn.evaluation.outcomes import Outcomes
from patchknn.figures.auroc import auroc
from patchknn.search.calibration import calibrated_confidences, of_prediction, tempered
from patchknn.search.class_scores import Voting, class_probabilities, class_scores

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

METHODS = (TEMPERATURE, ISOTONIC)
_FOLDS = 5
_GROUPS = 50  # of queries, that an isotonic curve is drawn through: its steps are no noise then
_SCALES = np.linspace(-4, 4, 33)  # logarithms of temperatures, of which the best is looked around
_SURE = 1e-6  # log-loss takes no confidence as nearer to 0 or 1


class Fit(NamedTuple):
    """The mapping that was the best on patients it had not seen, fitted anew on all of them.

    ``held_out`` has the figures of each confidence before, and of each method after it;
    ``accuracy_at`` is, for a wished accuracy, the calibrated confidence that gave it on them.
    """

    mapping: ConfidenceMap
    held_out: dict[str, dict[str, Any]]
    accuracy_at: dict[str, dict[str, Any] | None]


def voting_of(outcomes: Outcomes) -> Voting:
    """What the neighbours of each query say, in the numbers of ``outcomes.classes``."""
    return Voting(outcomes.neighbours, outcomes.distances, outcomes.norm, outcomes.prediction)


def fit_and_judge(
    voting: Voting,
    correct: Flags,
    priors: Floats,
    groups: npt.NDArray[np.integer[Any]],
    *,
    folds: int = _FOLDS,
    seed: int = 0,
) -> Fit:
    """Fit each method on some groups and judge it on the others; the lower Brier score is taken.

    ``correct`` (n,) says which predictions are right, ``priors`` (C,) how frequent the archive's
    classes are, ``groups`` (n,) whose queries they are: those of one patient are alike, and would
    praise a fit to themselves. Each of ``folds`` parts is judged by what the others gave. That the
    better of two methods is taken by the same figures flatters it by next to nothing.
    Raises InputError where there is one group alone.
    """
    fold = folds_of(groups, folds, np.random.default_rng(seed))
    judged = {method: np.zeros(len(correct)) for method in METHODS}
    for number in np.unique(fold):
        mine = fold == number
        seen, unseen = voting.select(~mine), voting.select(mine)
        for method, found in judged.items():
            fitted = fit(method, seen, correct[~mine], priors)
            found[mine] = np.nan_to_num(calibrated_confidences(fitted, unseen, priors))
    votes = voting.votes
    won = (voting.labels == voting.predictions[:, None]) & (voting.predictions >= 0)[:, None]
    shares = won.sum(axis=1) / np.maximum(votes, 1)
    weighted = of_prediction(class_scores(voting, len(priors)), voting)
    every = {"confidence": shares, "weighted_confidence": weighted, **judged}
    held_out = {name: judged_figures(values, correct) for name, values in every.items()}
    best = min(METHODS, key=lambda method: held_out[method]["brier"])
    return Fit(
        mapping=fit(best, voting, correct, priors),
        held_out=held_out,
        accuracy_at=accuracy_at(judged[best], correct),
    )


def judged_figures(confidence: Floats, correct: Flags) -> dict[str, Any]:
    """What a confidence (n,) is worth, ready for JSON."""
    return {
        "ece": metrics.expected_calibration_error(confidence, correct),
        "ece_bias": ece_bias(confidence),
        "brier": brier(confidence, correct),
        "log_loss": log_loss(confidence, correct),
        "auroc": auroc(confidence, correct),
    }


def fit(method: str, voting: Voting, correct: Flags, priors: Floats) -> ConfidenceMap:
    """One method fitted to queries (n,) that are right or wrong."""
    if method == ISOTONIC:
        return fit_isotonic(of_prediction(class_scores(voting, len(priors)), voting), correct)
    return fit_temperature(voting, correct, priors)


def fit_temperature(voting: Voting, correct: Flags, priors: Floats) -> ConfidenceMap:
    """The temperature whose confidences in the predictions have the least log-loss.

    It is about right or wrong, not about each class, for that is what a confidence says; a query
    of a class that the archive lacks is wrong like any other. Between e⁻⁴ and e⁴.
    """
    probabilities = class_probabilities(voting, priors)

    def loss(scale: float) -> float:
        found = tempered(probabilities, float(np.exp(scale)))
        return log_loss(of_prediction(found, voting), correct)

    scales, step = _SCALES, float(_SCALES[1] - _SCALES[0])
    best = float(scales[np.argmin([loss(scale) for scale in scales.tolist()])])
    while step > 1e-3:
        scales = best + np.linspace(-step, step, 9)
        best = float(scales[np.argmin([loss(scale) for scale in scales.tolist()])])
        step /= 4
    return ConfidenceMap(TEMPERATURE, temperature=float(np.exp(best)))


def fit_isotonic(weighted: Floats, correct: Flags) -> ConfidenceMap:
    """The rising curve from weighted confidence to the share that is right.

    Queries are put together in 50 groups of like confidence first. No confidence is nearer to 0 or
    1 than that many queries can tell (rule of succession).
    """
    means, shares, sizes = grouped(weighted, correct, _GROUPS)
    curve = isotonic(means, shares, sizes)
    least = 1 / (len(correct) + 2)
    levels = np.clip(curve.y, least, 1 - least)
    knots = tuple(zip(curve.x.tolist(), levels.tolist(), strict=True))
    return ConfidenceMap(ISOTONIC, knots=knots)


def log_loss(confidence: Floats, correct: Flags) -> float:
    """The mean −log of what was given to what came; a confidence of 0 or 1 counts as 1e-6 off."""
    sure = np.clip(confidence, _SURE, 1 - _SURE)
    return float(-np.log(np.where(correct, sure, 1 - sure)).mean())
