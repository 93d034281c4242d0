"""The figures of one method: how often it is right, what it finds, what its confidence is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patchknn.evaluation.figures import metrics, ranking
from patchknn.evaluation.figures.confidence import brier, confidence_figures, ece_bias
from patchknn.evaluation.figures.paired import Paired
from patchknn.evaluation.outcomes import Outcomes
from patchknn.figures.auroc import auroc
from patchknn.figures.resampling import Interval


@dataclass(frozen=True)
class Evaluation:
    """What came of the queries by one method; a figure is None where it does not exist for it.

    ``known_classes`` are those of the archive: queries of other classes count as wrong.
    ``left_out`` counts inputs that had no label; ``failed`` those that could not be answered.
    ``intervals`` are of figures, by name, and ``paired`` is beside another method, where wanted.
    ``calibrated`` are figures of the archive's calibration, where they were asked for.
    ``added`` are further keys of its JSON.
    """

    method: str
    outcomes: Outcomes
    known_classes: tuple[str, ...]
    left_out: int = 0
    failed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    paired: Paired | None = None
    calibrated: dict[str, Any] = field(default_factory=dict)
    added: dict[str, Any] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """How many neighbours voted."""
        return self.outcomes.k

    @property
    def classes(self) -> list[str]:
        """The classes of the queries, sorted."""
        names = self.outcomes.classes
        return sorted(names[number] for number in np.unique(self.outcomes.label).tolist())

    @property
    def unknown_classes(self) -> dict[str, int]:
        """Queries by class, of classes that the archive lacks."""
        counts = np.bincount(self.outcomes.label, minlength=len(self.outcomes.classes))
        by_name = dict(zip(self.outcomes.classes, counts.tolist(), strict=True))
        return {name: by_name[name] for name in self.classes if name not in self.known_classes}

    def class_rows(self) -> list[dict[str, Any]]:
        """Per class: queries, recall, precision, F1, and the precision of the neighbours."""
        outcomes = self.outcomes
        hits = outcomes.true_neighbours
        numbers = {name: number for number, name in enumerate(outcomes.classes)}
        return [
            {
                "class": name,
                "n": score.n,
                "recall": score.recall,
                "precision": score.precision,
                "f1": score.f1,
                "precision_at_k": metrics.precision_at_k(
                    hits[outcomes.label == numbers[name]], self.k
                ),
            }
            for name, score in ranking.class_scores(self.confusion()).items()
        ]

    def confusion(self) -> ranking.Confusion:
        """Queries by class and prediction."""
        outcomes = self.outcomes
        return ranking.confusion(outcomes.label, outcomes.prediction, outcomes.classes)

    def neighbour_histogram(self) -> list[int]:
        """How many queries have 0, 1, … k true neighbours (paper A, Fig. 2)."""
        return ranking.neighbour_histogram(self.outcomes.true_neighbours, self.k)

    def confidence_rows(self) -> list[dict[str, Any]]:
        """Accuracy against confidence, per bin."""
        return [
            {
                "low": entry.low,
                "high": entry.high,
                "n": entry.n,
                "confidence": entry.confidence,
                "accuracy": entry.accuracy,
            }
            for entry in metrics.confidence_bins(*self._confidence())
        ]

    def figures(self) -> dict[str, Any]:
        """The figures by name, without the tables."""
        outcomes = self.outcomes
        true, predicted, hits = outcomes.label, outcomes.prediction, outcomes.true_neighbours
        confidence, correct = self._confidence()
        weighted = self._weighted_confidence()
        smallest = metrics.smallest_class_recall(true, predicted)
        judged = outcomes.correct_by_classifier
        sure = ~np.isnan(outcomes.probability)
        exhaustive = outcomes.l2_true[outcomes.l2_true >= 0]
        relevant = ranking.relevance(outcomes)
        return {
            "n": len(outcomes),
            "patients": len(np.unique(outcomes.patient[outcomes.patient >= 0])),
            "k": self.k,
            "classes": self.classes,
            "accuracy": metrics.accuracy(true, predicted),
            "mean_class_recall": metrics.mean_class_recall(true, predicted),
            "recall_smallest_class": None if smallest is None else smallest.recall,
            "smallest_class": None if smallest is None else outcomes.classes[smallest.label],
            "precision_at_k": metrics.precision_at_k(hits, self.k),
            "all_k_true": metrics.all_k_true(hits, self.k),
            "map_at_k": ranking.mean(ranking.average_precisions(relevant)),
            "ndcg_at_k": ranking.mean(ranking.discounted_gains(relevant)),
            "l2_precision_at_k": metrics.precision_at_k(exhaustive, self.k),
            "mean_ball": metrics.mean_known(outcomes.ball),
            "empty_balls": metrics.mean_known(outcomes.empty),
            "widened": metrics.mean_known(outcomes.widened),
            "confidence_auroc": auroc(confidence, correct),
            "aurc": metrics.aurc(confidence, correct),
            "ece": metrics.expected_calibration_error(confidence, correct),
            "ece_bias": ece_bias(confidence),
            "brier": brier(confidence, correct),
            "weighted_confidence_auroc": auroc(*weighted),
            "weighted_aurc": metrics.aurc(*weighted),
            "weighted_ece": metrics.expected_calibration_error(*weighted),
            "classifier_accuracy": metrics.mean_known(judged),
            "classifier_aurc": metrics.aurc(outcomes.probability[sure], judged[sure] > 0),
            **self.calibrated,
        }

    def as_json(self) -> dict[str, Any]:
        """One line of ``evaluate``'s NDJSON."""
        return {
            "method": self.method,
            **self.figures(),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "paired": None if self.paired is None else self.paired.as_json(),
            "failed": self.failed,
            "left_out": self.left_out,
            "unknown_classes": self.unknown_classes,
            "per_class": self.class_rows(),
            "confusion": self.confusion().as_json(),
            "neighbour_histogram": self.neighbour_histogram(),
            "confidence_bins": self.confidence_rows(),
            "confidence_figures": confidence_figures(self.outcomes),
            "settings": self.settings,
            **self.added,
        }

    def _confidence(self) -> tuple[metrics.Floats, metrics.Bools]:
        """The share of votes, 0 of a query without any."""
        return np.nan_to_num(self.outcomes.confidence), self.outcomes.correct

    def _weighted_confidence(self) -> tuple[metrics.Floats, metrics.Bools]:
        """The same by distance; nothing at all of a method that has no such confidence."""
        weighted, correct = self.outcomes.weighted_confidence, self.outcomes.correct
        if np.isnan(weighted).all():
            return np.zeros(0), correct[:0]
        return np.nan_to_num(weighted), correct
