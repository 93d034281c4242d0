"""Figures of merit from plain arrays: classification, retrieval, and how far confidence is right.

``true`` and ``predicted`` are integer classes (n,), −1 in ``predicted`` meaning no prediction;
``confidence`` is in [0, 1] (n,); ``correct`` is bool (n,). A figure that does not exist for such
data (no queries, only right answers) is None, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassRecall:
    """One class: its queries, and the share of them that were predicted right."""

    label: int
    n: int
    recall: float


@dataclass(frozen=True)
class ConfidenceBin:
    """Queries whose confidence lies in (low, high], 0 falling into the first bin."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def accuracy(true: Ints, predicted: Ints) -> float | None:
    """The share of right predictions (Acc)."""
    return _mean(true == predicted)


def class_recalls(true: Ints, predicted: Ints) -> list[ClassRecall]:
    """Recall of every class that has queries, in the order of their numbers."""
    recalls = []
    for label in np.unique(true).tolist():
        mine = true == label
        recall = float((predicted[mine] == label).mean())
        recalls.append(ClassRecall(label, int(mine.sum()), recall))
    return recalls


def mean_class_recall(true: Ints, predicted: Ints) -> float | None:
    """The plain mean of the recalls (MCR): every class counts the same, however rare."""
    recalls = class_recalls(true, predicted)
    return _mean(np.array([entry.recall for entry in recalls]))


def smallest_class_recall(true: Ints, predicted: Ints) -> ClassRecall | None:
    """The recall of the class with the fewest queries (RS); a tie goes to the lower recall."""
    recalls = class_recalls(true, predicted)
    return min(recalls, key=lambda entry: (entry.n, entry.recall), default=None)


def precision_at_k(true_neighbours: Ints, k: int) -> float | None:
    """The mean share of true neighbours among k (paper A, 3.3).

    ``true_neighbours`` (n,) counts the neighbours of the query's class; those that are missing
    from an answer of fewer than k count as wrong.
    """
    return _mean(np.asarray(true_neighbours) / k)


def all_k_true(true_neighbours: Ints, k: int) -> float | None:
    """The share of queries all of whose k neighbours are of their class (paper A, Fig. 2)."""
    return _mean(np.asarray(true_neighbours) == k)


def risk_coverage(confidence: Floats, correct: Bools) -> npt.NDArray[np.float64]:
    """Error rate (n,) among the 1, 2, … n most confident answers.

    Votes of k neighbours give few different confidences, so ties are the rule: among equals the
    curve is the mean over all their orders, and does not hang on the order of the queries.
    """
    values, inverse, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(inverse, weights=~correct, minlength=len(values))
    rate = np.repeat(wrong / counts, counts)
    errors = np.cumsum(rate)
    return np.asarray(errors / np.arange(1, len(confidence) + 1))


def aurc(confidence: Floats, correct: Bools) -> float | None:
    """The area under the risk-coverage curve: its mean over all coverages; less is better."""
    return _mean(risk_coverage(confidence, correct))


def confidence_bins(confidence: Floats, correct: Bools, bins: int = 10) -> list[ConfidenceBin]:
    """Accuracy against confidence in bins of equal width."""
    place = bin_places(confidence, bins)
    result = []
    for number in range(bins):
        mine = place == number
        result.append(
            ConfidenceBin(
                low=number / bins,
                high=(number + 1) / bins,
                n=int(mine.sum()),
                confidence=_mean(confidence[mine]),
                accuracy=_mean(correct[mine]),
            )
        )
    return result


def bin_places(confidence: Floats, bins: int) -> npt.NDArray[np.int64]:
    """The number (n,) of the bin that each confidence falls into."""
    # Confidences are small fractions: 3/10 must not fall beyond the edge 0.3 by a last bit.
    place = np.ceil(np.round(confidence * bins, 9)).astype(np.int64) - 1
    return np.asarray(np.clip(place, 0, bins - 1))


def expected_calibration_error(confidence: Floats, correct: Bools, bins: int = 10) -> float | None:
    """The mean distance of accuracy from confidence over bins, weighted by their queries (ECE)."""
    if len(confidence) == 0:
        return None
    gaps = (
        entry.n * abs(entry.accuracy - entry.confidence)
        for entry in confidence_bins(confidence, correct, bins)
        if entry.accuracy is not None and entry.confidence is not None
    )
    return sum(gaps) / len(confidence)


def mean_known(values: Ints) -> float | None:
    """The mean of the values (n,) that are known, −1 standing for those that are not."""
    return _mean(values[values >= 0])


def _mean(values: npt.NDArray[np.number | np.bool_]) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None
