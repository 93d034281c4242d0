"""What an archive's calibration is worth on labelled queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchknn.archive.calibration import Calibration
from patchknn.evaluation.calibration.calibrate import voting_of
from patchknn.evaluation.figures import metrics
from patchknn.evaluation.figures.confidence import brier, ece_bias
from patchknn.evaluation.outcomes import Outcomes
from patchknn.figures.auroc import auroc
from patchknn.search.calibration import calibrated_confidences, padded_priors, prediction_sets
from patchknn.search.class_scores import class_probabilities
from patchknn.search.strangeness import neighbour_distances, out_of_distribution


def calibrated_figures(
    calibration: Calibration, outcomes: Outcomes, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Figures of the calibrated confidence, the prediction sets and the strangers, for JSON.

    ``classes`` are those of the archive, which have the first numbers in ``outcomes``: a query of
    another is in no set. ``set_coverage`` is the share of sets with the true class, to be held
    against ``coverage``; ``out_of_distribution`` the share of queries like nothing in the archive.
    """
    voting, correct = voting_of(outcomes), outcomes.correct
    priors = padded_priors(calibration, classes)
    confidence = np.nan_to_num(calibrated_confidences(calibration.mapping, voting, priors))
    sets = prediction_sets(class_probabilities(voting, priors), calibration.threshold)
    known = outcomes.label < len(classes)
    held = sets[np.arange(len(sets)), np.where(known, outcomes.label, 0)] & known
    strange = out_of_distribution(calibration, neighbour_distances(voting))
    return {
        "calibrated_ece": metrics.expected_calibration_error(confidence, correct),
        "calibrated_ece_bias": ece_bias(confidence),
        "calibrated_brier": brier(confidence, correct),
        "calibrated_auroc": auroc(confidence, correct),
        "calibrated_aurc": metrics.aurc(confidence, correct),
        "coverage": calibration.coverage,
        "set_coverage": float(held.mean()) if len(held) else None,
        "mean_set_size": float(sets.sum(axis=1).mean()) if len(sets) else None,
        "out_of_distribution": float(strange.mean()) if len(strange) else None,
    }
