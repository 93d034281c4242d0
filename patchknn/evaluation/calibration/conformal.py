"""Sets of classes that hold the true one in a promised share of cases: split conformal prediction.

The promise (Vovk 2005; Papadopoulos 2002) is kept where a query is exchangeable with those that the
threshold was made of. Patches of one patient are alike, so it is patients that are to be
exchangeable: the promise is about a patch of a patient who might as well have been among these,
each counting by the patches they have, and it is an average over patients, not one for each. So a
query does not count as one more score, as it does among independent ones, but as what its patient's
patches are worth together, the design effect (Kish 1965): an approximation that simulations bear
out from some fifteen patients on. Of fewer the promise is loose; ``coverage_over_splits`` shows by
how much. A row of the archive is answered without its own patient, a new query by all of them,
which errs on the safe side.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.calibration.group_splits import folds_of
from patchknn.search.calibration import prediction_sets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]

SPLITS = 20


class Coverage(NamedTuple):
    """Over random splits by patient: the mean share of sets with the true class, its standard
    error, and how many classes a set has in the mean.
    """

    coverage: float
    error: float
    set_size: float


def nonconformity(probabilities: Floats, labels: Ints) -> Floats:
    """1 − the probability (n,) of the true class, infinite for a class that the archive lacks.

    ``probabilities`` (n, C) are those of ``class_probabilities``: the distance-weighted votes, and
    the priors for what they leave open. So classes without votes differ, and ties are rare; where
    there are some, the set takes all of them in: conservative, nothing is drawn by lot.
    """
    known = (labels >= 0) & (labels < probabilities.shape[1])
    chosen = np.where(known, labels, 0)
    return np.where(known, 1 - probabilities[np.arange(len(labels)), chosen], np.inf)


def conformal_threshold(
    scores: Floats, coverage: float, groups: Ints | None = None
) -> float | None:
    """The ⌈(n + d) · ``coverage``⌉-th smallest of the scores (n,); None where that is infinite.

    Then only the set of all classes keeps the promise. d is the design effect of what ⌈(n + 1) ·
    ``coverage``⌉ would miss, by the patients ``groups`` (n,): 1 where each query has its own.
    """
    threshold = _ranked(scores, (len(scores) + 1) * coverage)
    if threshold is None or groups is None:
        return threshold
    effect = design_effect(scores > threshold, groups)
    return _ranked(scores, (len(scores) + effect) * coverage)


def design_effect(missed: npt.NDArray[np.bool_], groups: Ints) -> float:
    """How much the variance of a share (n,) grows by its members being of ``groups`` (n,).

    The sum over groups of their squared sums of deviations from the mean, by the sum of squared
    deviations (Kish 1965; Liang and Zeger 1986): 1 + (m − 1) ρ of m alike in each. At least 1.
    """
    deviations = missed - missed.mean()
    alone = float(np.square(deviations).sum())
    if not alone:
        return 1.0
    _, place = np.unique(groups, return_inverse=True)
    together = float(np.square(np.bincount(place, weights=deviations)).sum())
    return max(together / alone, 1.0)


def _ranked(scores: Floats, rank: float) -> float | None:
    """The ⌈``rank``⌉-th smallest; None where there is none such, or it is infinite."""
    place = math.ceil(round(rank, 9))
    if place > len(scores):
        return None
    value = float(np.partition(scores, place - 1)[place - 1])
    return value if math.isfinite(value) else None


def coverage_over_splits(
    probabilities: Floats,
    labels: Ints,
    groups: Ints,
    coverage: float,
    *,
    splits: int = SPLITS,
    seed: int = 0,
) -> Coverage:
    """What the sets hold where one half of the patients gave the threshold and the other asks.

    Raises InputError where there is one group alone.
    """
    scores = nonconformity(probabilities, labels)
    generator = np.random.default_rng(seed)
    held, sizes = np.zeros(splits), np.zeros(splits)
    for number in range(splits):
        asked = folds_of(groups, 2, generator) == 1
        threshold = conformal_threshold(scores[~asked], coverage, groups[~asked])
        sets = prediction_sets(probabilities[asked], threshold)
        limit = 1.0 if threshold is None else threshold
        held[number] = (scores[asked] <= limit).mean()
        sizes[number] = sets.sum(axis=1).mean()
    error = float(held.std(ddof=1) / math.sqrt(splits))
    return Coverage(float(held.mean()), error, float(sizes.mean()))
