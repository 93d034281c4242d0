"""What a confidence is worth: whether it goes with accuracy, means what it says, and ranks.

``confidence`` is in [0, 1] (n,), ``correct`` bool (n,). A figure that does not exist is None.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.figures import metrics
from patchknn.evaluation.figures.selective import coverage_rows, excess_aurc, threshold_for
from patchknn.evaluation.outcomes import Outcomes
from patchknn.figures.auroc import auroc
from patchknn.figures.correlation import pearson, spearman

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

BATCH = 50  # queries, as in paper A, Fig. 3
WISHED = (0.9, 0.95, 0.99)
_REPETITIONS = 200
_SEED = 0


class Batch(NamedTuple):
    """Queries of about the same confidence: the mean of it, and the share that is right."""

    n: int
    confidence: float
    accuracy: float


def brier(confidence: Floats, correct: Bools) -> float | None:
    """The mean squared distance of the confidence from what came, 1 or 0 (Brier 1950)."""
    if not len(confidence):
        return None
    return float(np.mean(np.square(confidence - correct.astype(np.float64))))


def batches(confidence: Floats, correct: Bools, size: int = BATCH) -> list[Batch]:
    """Accuracy against confidence in batches of ``size``, the least sure first (paper A, Fig. 3).

    Among equal confidences each batch gets the accuracy that it has in the mean over all their
    orders, so that it does not hang on the order of the queries. What is left over makes a batch
    of its own where it is half of one, else it joins the last.
    """
    if not len(confidence):
        return []
    values, inverse, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    right = np.bincount(inverse, weights=correct, minlength=len(values)) / counts
    ordered, expected = np.repeat(values, counts), np.repeat(right, counts)
    edges = list(range(0, len(ordered), size))
    if len(edges) > 1 and 2 * (len(ordered) - edges[-1]) < size:
        edges.pop()
    return [
        Batch(stop - start, float(ordered[start:stop].mean()), float(expected[start:stop].mean()))
        for start, stop in zip(edges, [*edges[1:], len(ordered)], strict=True)
    ]


def ece_bias(confidence: Floats, bins: int = 10) -> float | None:
    """The ECE that is to be expected where every confidence is true: what of an ECE is chance.

    Accuracies of few queries miss even a true confidence, and an ECE counts that as an error. The
    mean of 200 draws of right and wrong from the confidences themselves, from a fixed seed.
    """
    if not len(confidence):
        return None
    values, counts = np.unique(confidence, return_counts=True)
    places = metrics.bin_places(values, bins)
    generator = np.random.default_rng(_SEED)
    total = 0.0
    for _ in range(_REPETITIONS):
        gap = generator.binomial(counts, np.clip(values, 0, 1)) - counts * values
        total += float(np.abs(np.bincount(places, weights=gap, minlength=bins)).sum())
    return total / (_REPETITIONS * len(confidence))


def figures_of(confidence: Floats, correct: Bools) -> dict[str, Any]:
    """The figures of one confidence by name, ready for JSON.

    ``ece_debiased`` is the ECE less ``ece_bias``, no less than 0. That takes off too much where
    confidences are far from true, since chance then adds less: the truth lies between both.
    ``accuracy_at`` says, for each wished accuracy, from which threshold on it is reached.
    """
    ece, bias = metrics.expected_calibration_error(confidence, correct), ece_bias(confidence)
    found = batches(confidence, correct)
    pair = np.array([batch.confidence for batch in found]), np.array([b.accuracy for b in found])
    return {
        "n": len(confidence),
        "accuracy": float(correct.mean()) if len(correct) else None,
        "mean_confidence": float(confidence.mean()) if len(confidence) else None,
        "brier": brier(confidence, correct),
        "ece": ece,
        "ece_bias": bias,
        "ece_debiased": None if ece is None or bias is None else max(ece - bias, 0.0),
        "auroc": auroc(confidence, correct),
        "aurc": metrics.aurc(confidence, correct),
        "e_aurc": excess_aurc(confidence, correct),
        "batches": len(found),
        "batch_pearson": pearson(*pair),
        "batch_spearman": spearman(*pair),
        "accuracy_at": accuracy_at(confidence, correct),
    }


def accuracy_at(confidence: Floats, correct: Bools) -> dict[str, dict[str, Any] | None]:
    """For each wished accuracy the threshold that reaches it, None where none does."""
    found = {str(share): threshold_for(confidence, correct, share) for share in WISHED}
    return {share: None if one is None else one._asdict() for share, one in found.items()}


def confidence_figures(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """``figures_of`` each confidence that the outcomes have, by its name."""
    return {name: figures_of(*pair) for name, pair in confidences(outcomes).items()}


def confidence_tables(outcomes: Outcomes) -> dict[str, list[dict[str, Any]]]:
    """What the plots are drawn from: ``batches``, ``reliability`` and ``risk_coverage``.

    In each row ``score`` names the confidence; all are ready for CSV.
    """
    tables: dict[str, list[dict[str, Any]]] = {
        "batches": [],
        "reliability": [],
        "risk_coverage": [],
    }
    for name, (confidence, correct) in confidences(outcomes).items():
        score = {"score": name}
        tables["batches"] += [score | b._asdict() for b in batches(confidence, correct)]
        tables["reliability"] += [
            score
            | {
                "low": entry.low,
                "high": entry.high,
                "n": entry.n,
                "confidence": entry.confidence,
                "accuracy": entry.accuracy,
            }
            for entry in metrics.confidence_bins(confidence, correct)
        ]
        tables["risk_coverage"] += [score | row for row in coverage_rows(confidence, correct)]
    return tables


def confidences(outcomes: Outcomes) -> dict[str, tuple[Floats, Bools]]:
    """Each confidence (n,) that there is, with whether what it is of is right (n,).

    ``confidence`` and ``weighted_confidence`` are of the vote, 0 of a query without votes;
    ``classifier`` is of those queries that have an opinion of it.
    """
    correct = outcomes.correct
    found: dict[str, tuple[Floats, Bools]] = {
        "confidence": (np.nan_to_num(outcomes.confidence), correct)
    }
    if not np.isnan(outcomes.weighted_confidence).all():
        found["weighted_confidence"] = (np.nan_to_num(outcomes.weighted_confidence), correct)
    sure = ~np.isnan(outcomes.probability)
    if sure.any():
        right = outcomes.correct_by_classifier[sure] > 0
        found["classifier"] = (outcomes.probability[sure], right)
    return found
