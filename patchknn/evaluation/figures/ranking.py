"""Figures of the order of neighbours, and tables of who was taken for whom, from columns.

``relevant`` (n, k) bool says of each neighbour, nearest first, whether it is of the query's class;
one that is missing is not. A figure that does not exist (no queries) is None, never NaN.

Average precision and DCG are divided by what k true neighbours give. Other implementations divide
by min(R, k), R being the relevant rows that may answer, which is the same wherever a class has k
of them; where it has fewer, missing neighbours count as wrong here as they do in precision at k.
Dividing by the true neighbours that were found, as some do, would praise an answer of one true
neighbour and k − 1 wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.outcomes import Ints, Outcomes

Floats = npt.NDArray[np.float64]
Relevant = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Confusion:
    """Queries by class, and by what was predicted for them.

    ``counts`` (c, p) int64: a row per class of ``true``, a column per prediction; the last of
    ``predicted`` is None: no neighbour had a vote.
    """

    true: tuple[str, ...]
    predicted: tuple[str | None, ...]
    counts: npt.NDArray[np.int64]

    def as_json(self) -> dict[str, Any]:
        """The object under ``confusion``."""
        return {
            "true": list(self.true),
            "predicted": list(self.predicted),
            "counts": self.counts.tolist(),
        }


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told from the others; ``precision`` is None where none is called so."""

    n: int
    recall: float
    precision: float | None
    f1: float


def relevance(outcomes: Outcomes) -> Relevant:
    """Whether each neighbour (n, k) is of its query's class."""
    return np.asarray(outcomes.neighbours == outcomes.label[:, None])


def average_precisions(relevant: Relevant) -> Floats:
    """The average precision at k of each query (n,): the mean over k of P(i) · rel(i)."""
    k = relevant.shape[1]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, k + 1)
    return np.asarray((precision * relevant).sum(axis=1) / k)


def discounted_gains(relevant: Relevant) -> Floats:
    """The nDCG at k of each query (n,): rank i counts 1 / log2(i + 1), all k true give 1.

    Järvelin and Kekäläinen 2002, with a gain of 1 for the query's class and 0 for others.
    """
    discount = 1 / np.log2(np.arange(2, relevant.shape[1] + 2))
    return np.asarray(relevant @ discount / discount.sum())


def mean(values: Floats) -> float | None:
    """The mean over queries (n,)."""
    return float(values.mean()) if len(values) else None


def neighbour_histogram(true_neighbours: npt.NDArray[np.integer[Any]], k: int) -> list[int]:
    """How many queries have 0, 1, … k true neighbours (paper A, Fig. 2)."""
    counts: list[int] = np.bincount(true_neighbours, minlength=k + 1).tolist()
    return counts


def confusion(label: Ints, prediction: Ints, classes: tuple[str, ...]) -> Confusion:
    """The confusion matrix of classes (n,) and predictions (n,), −1 where there is none.

    Classes are those that have queries, predictions these and any other that was predicted, each
    sorted by name.
    """
    true = sorted(np.unique(label).tolist(), key=lambda number: classes[number])
    called = set(np.unique(prediction[prediction >= 0]).tolist())
    predicted = sorted(called | set(true), key=lambda number: classes[number])
    row = np.zeros(len(classes), np.int64)
    row[true] = np.arange(len(true))
    column = np.full(len(classes) + 1, len(predicted), np.int64)  # −1 counts from the end
    column[predicted] = np.arange(len(predicted))
    width = len(predicted) + 1
    places = row[label] * width + column[prediction]
    counts = np.bincount(places, minlength=len(true) * width).reshape(len(true), width)
    names = tuple(classes[number] for number in predicted)
    return Confusion(tuple(classes[number] for number in true), (*names, None), counts)


def class_scores(table: Confusion) -> dict[str, ClassScore]:
    """Recall, precision and F1 of every class that has queries."""
    totals = table.counts.sum(axis=0).tolist()
    scores = {}
    for name, counts in zip(table.true, table.counts.tolist(), strict=True):
        place = table.predicted.index(name)
        right, n, called = counts[place], sum(counts), totals[place]
        precision = right / called if called else None
        scores[name] = ClassScore(n, right / n, precision, 2 * right / (n + called))
    return scores
