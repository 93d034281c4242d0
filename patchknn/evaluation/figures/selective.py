"""Answering only what one is sure of: what is gained by it, and from which confidence on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.figures import metrics

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
_POINTS = 1000  # of a curve, more than can be seen


class Threshold(NamedTuple):
    """Answers of at least the confidence ``threshold``: ``coverage`` is their share of all.

    ``accuracy`` is the share of right ones among these ``n``; ``lower`` bounds it from below.
    """

    threshold: float
    coverage: float
    accuracy: float
    lower: float
    n: int


class _Levels(NamedTuple):
    """Per distinct confidence, the highest first: it, and how many answers reach it, how many of
    these are right.
    """

    confidence: npt.NDArray[np.float64]
    n: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]


def threshold_for(
    confidence: Floats, correct: Bools, accuracy: float, *, certainty: float = 0.95
) -> Threshold | None:
    """The threshold at which most answers are given and a share ``accuracy`` of them is right.

    ``confidence`` (n,) in [0, 1], ``correct`` (n,). ``lower`` is the one-sided bound of Clopper
    and Pearson at ``certainty``. It takes the queries as independent and the threshold as given:
    of few patients, and of the data that chose the threshold, it promises too much, so that
    a threshold is to be judged on others. None where no threshold does it.
    """
    levels = _levels(confidence, correct)
    enough = np.flatnonzero(levels.right >= accuracy * levels.n - 1e-9)
    if not len(enough):
        return None
    place = int(enough[-1])
    n, right = int(levels.n[place]), int(levels.right[place])
    return Threshold(
        threshold=float(levels.confidence[place]),
        coverage=n / len(confidence),
        accuracy=right / n,
        lower=lower_bound(right, n, certainty),
        n=n,
    )


def lower_bound(right: int, n: int, certainty: float = 0.95) -> float:
    """The lower bound of Clopper and Pearson (1934), one-sided, of a share ``right`` of ``n``."""
    from scipy.special import betaincinv

    return 0.0 if right == 0 else float(betaincinv(right, n - right + 1, 1 - certainty))


def coverage_rows(confidence: Floats, correct: Bools) -> list[dict[str, Any]]:
    """The risk-coverage curve where a threshold can stand: at distinct confidences, 1000 at most.

    The highest confidence comes first, the whole of the answers last.
    """
    levels = _levels(confidence, correct)
    chosen = np.arange(len(levels.n))
    if len(chosen) > _POINTS:
        chosen = np.unique(np.linspace(0, len(chosen) - 1, _POINTS).round().astype(np.int64))
    return [
        {"threshold": t, "coverage": n / len(confidence), "n": n, "risk": 1 - right / n}
        for t, n, right in zip(*(column[chosen].tolist() for column in levels), strict=True)
    ]


def excess_aurc(confidence: Floats, correct: Bools) -> float | None:
    """AURC above that of the best order of the same answers (Geifman 2019: E-AURC).

    That is all right ones first. Unlike AURC it does not hang on how many are wrong, only on how
    they are ranked.
    """
    area = metrics.aurc(confidence, correct)
    if area is None:
        return None
    best = np.arange(1, len(correct) + 1, dtype=np.float64)
    wrong = np.maximum(best - int(correct.sum()), 0)
    return area - float((wrong / best).mean())


def _levels(confidence: Floats, correct: Bools) -> _Levels:
    values, inverse, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    right = np.bincount(inverse, weights=correct, minlength=len(values))
    return _Levels(
        np.asarray(-values, np.float64), np.cumsum(counts), np.cumsum(right).astype(np.int64)
    )
