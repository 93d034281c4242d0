"""What came of each query, as columns, and the figures made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patchknn.evaluation import metrics


@dataclass(frozen=True)
class Outcome:
    """What came of one query whose true class is ``label``.

    ``neighbours`` are their labels. ``ball``, ``empty`` and ``widened`` describe the first stage;
    they are None for a method that has none, as ``classifier`` with its ``probability`` and
    ``l2_true`` (the number of true neighbours by exhaustive L2) are where there is no such thing.
    """

    query: str
    label: str
    prediction: str | None
    confidence: float | None
    neighbours: tuple[str | None, ...]
    weighted_confidence: float | None = None
    ball: int | None = None
    empty: bool | None = None
    widened: bool | None = None
    classifier: str | None = None
    probability: float | None = None
    l2_true: int | None = None

    @property
    def true_neighbours(self) -> int:
        """How many neighbours are of the query's class."""
        return sum(label == self.label for label in self.neighbours)


@dataclass(frozen=True)
class Report:
    """The figures of one method; None where a figure does not exist for it.

    ``known_classes`` are those of the archive: queries of other classes count as wrong.
    ``left_out`` counts inputs that had no label; ``failed`` those that could not be answered.
    """

    method: str
    k: int
    outcomes: tuple[Outcome, ...]
    known_classes: tuple[str, ...]
    left_out: int = 0
    failed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The classes of the queries, sorted."""
        return sorted({outcome.label for outcome in self.outcomes})

    @property
    def unknown_classes(self) -> dict[str, int]:
        """Queries by class, of classes that the archive lacks."""
        labels = [outcome.label for outcome in self.outcomes]
        return {name: labels.count(name) for name in self.classes if name not in self.known_classes}

    def class_rows(self) -> list[dict[str, Any]]:
        """Per class: queries, recall, and the precision of the neighbours."""
        true, predicted = self._labels()
        hits = self._hits()
        return [
            {
                "class": self.classes[entry.label],
                "n": entry.n,
                "recall": entry.recall,
                "precision_at_k": metrics.precision_at_k(hits[true == entry.label], self.k),
            }
            for entry in metrics.class_recalls(true, predicted)
        ]

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
        true, predicted = self._labels()
        hits = self._hits()
        confidence, correct = self._confidence()
        weighted = self._weighted_confidence()
        smallest = metrics.smallest_class_recall(true, predicted)
        exhaustive = [outcome.l2_true for outcome in self.outcomes]
        return {
            "n": len(self.outcomes),
            "k": self.k,
            "classes": self.classes,
            "accuracy": metrics.accuracy(true, predicted),
            "mean_class_recall": metrics.mean_class_recall(true, predicted),
            "recall_smallest_class": None if smallest is None else smallest.recall,
            "smallest_class": None if smallest is None else self.classes[smallest.label],
            "precision_at_k": metrics.precision_at_k(hits, self.k),
            "all_k_true": metrics.all_k_true(hits, self.k),
            "l2_precision_at_k": _share([_over(count, self.k) for count in exhaustive]),
            "mean_ball": _share([outcome.ball for outcome in self.outcomes]),
            "empty_balls": _share([outcome.empty for outcome in self.outcomes]),
            "widened": _share([outcome.widened for outcome in self.outcomes]),
            "confidence_auroc": metrics.auroc(confidence, correct),
            "aurc": metrics.aurc(confidence, correct),
            "ece": metrics.expected_calibration_error(confidence, correct),
            "weighted_confidence_auroc": metrics.auroc(*weighted),
            "weighted_aurc": metrics.aurc(*weighted),
            "weighted_ece": metrics.expected_calibration_error(*weighted),
            "classifier_accuracy": _share(
                [_agrees(outcome.classifier, outcome.label) for outcome in self.outcomes]
            ),
            "classifier_aurc": self._classifier_aurc(),
        }

    def as_json(self) -> dict[str, Any]:
        """One line of ``evaluate``'s NDJSON."""
        return {
            "method": self.method,
            **self.figures(),
            "failed": self.failed,
            "left_out": self.left_out,
            "unknown_classes": self.unknown_classes,
            "per_class": self.class_rows(),
            "confidence_bins": self.confidence_rows(),
            "settings": self.settings,
        }

    def _labels(self) -> tuple[metrics.Ints, metrics.Ints]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        true = [numbers[outcome.label] for outcome in self.outcomes]
        # A prediction of a class that no query has is wrong like any other.
        predicted = [numbers.get(outcome.prediction or "", -1) for outcome in self.outcomes]
        return np.array(true, np.int64), np.array(predicted, np.int64)

    def _hits(self) -> metrics.Ints:
        return np.array([outcome.true_neighbours for outcome in self.outcomes], np.int64)

    def _confidence(self) -> tuple[metrics.Floats, metrics.Bools]:
        true, predicted = self._labels()
        confidence = [outcome.confidence or 0.0 for outcome in self.outcomes]
        return np.array(confidence, np.float64), true == predicted

    def _weighted_confidence(self) -> tuple[metrics.Floats, metrics.Bools]:
        """The same by distance; nothing at all of a method that has no such confidence."""
        _, correct = self._confidence()
        values = [outcome.weighted_confidence for outcome in self.outcomes]
        if all(value is None for value in values):
            return np.zeros(0), correct[:0]
        return np.array([value or 0.0 for value in values], np.float64), correct

    def _classifier_aurc(self) -> float | None:
        known = [outcome for outcome in self.outcomes if outcome.probability is not None]
        right = np.array([outcome.classifier == outcome.label for outcome in known], np.bool_)
        return metrics.aurc(np.array([outcome.probability for outcome in known], np.float64), right)


def _share(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _over(count: int | None, k: int) -> float | None:
    return None if count is None else count / k


def _agrees(prediction: str | None, label: str) -> bool | None:
    return None if prediction is None else prediction == label
