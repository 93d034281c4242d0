"""How sure the figures are: bootstrap intervals by patient.

An interval is the middle 95 % of what a figure is over draws of the patients with replacement
(percentile interval); of few patients it is too narrow, which ``FEW`` stands for. Queries of an
unknown patient stand alone, as if each were a patient, which makes intervals too narrow too. The
ECE of a draw has the bias of the ECE and that of drawing: its interval lies too high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.figures.metrics import bin_places
from patchknn.evaluation.figures.ranking import average_precisions, discounted_gains, relevance
from patchknn.evaluation.outcomes import Outcomes
from patchknn.figures.resampling import (
    Floats,
    GroupedSums,
    Interval,
    dense_numbers,
    draws,
    middle,
)

FEW = 10  # patients, below which percentile intervals are known to be too narrow
_BINS = 10


def n_patients(outcomes: Outcomes) -> int:
    """How many patients the queries are of, each of an unknown one counting as one."""
    return len(np.unique(outcomes.groups))


def bootstrap_intervals(outcomes: Outcomes, replicates: int, seed: int) -> dict[str, Interval]:
    """From where to where each figure goes in draws of the patients; nothing of one patient.

    Figures of classes are means over the classes that a draw has queries of.
    """
    groups = dense_numbers(outcomes.groups)
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 2 or replicates < 1:
        return {}
    parts = [_by_class(outcomes, groups), _by_confidence(outcomes, groups)]
    known: dict[str, list[Floats]] = {}
    size = max(part.sums.size for part in parts)
    for weights in draws(n_groups, replicates, seed, size):
        for part in parts:
            for name, values in part.figures(part.sums.drawn(weights)).items():
                known.setdefault(name, []).append(values)
    return {
        name: interval
        for name, blocks in known.items()
        if (interval := middle(np.concatenate(blocks))) is not None
    }


@dataclass(frozen=True)
class _Part:
    sums: GroupedSums
    figures: Callable[[Floats], dict[str, Floats]]


def _by_class(outcomes: Outcomes, groups: npt.NDArray[np.int64]) -> _Part:
    relevant = relevance(outcomes)
    hits = outcomes.true_neighbours
    columns = (
        np.ones(len(outcomes)),
        outcomes.correct,
        hits / outcomes.k,
        hits == outcomes.k,
        average_precisions(relevant),
        discounted_gains(relevant),
    )

    def figures(sums: Floats) -> dict[str, Floats]:
        n, right = sums[..., 0], sums[..., 1]
        recalls = np.divide(right, n, out=np.full(n.shape, np.nan), where=n > 0)
        names = ("accuracy", "precision_at_k", "all_k_true", "map_at_k", "ndcg_at_k")
        totals = sums.sum(axis=1)
        means = totals[:, 1:] / totals[:, :1]
        return {
            "mean_class_recall": np.nanmean(recalls, axis=1),
            **dict(zip(names, means.T, strict=True)),
        }

    keys = dense_numbers(outcomes.label)
    return _Part(GroupedSums(groups, keys, np.stack(columns, axis=1).astype(np.float64)), figures)


def _by_confidence(outcomes: Outcomes, groups: npt.NDArray[np.int64]) -> _Part:
    confidence = np.nan_to_num(outcomes.confidence)
    levels = np.unique(confidence)
    columns = np.stack([np.ones(len(outcomes)), outcomes.correct], axis=1).astype(np.float64)
    # As metrics.confidence_bins has them.
    bins = bin_places(levels, _BINS)
    binned = (bins[:, None] == np.arange(_BINS)).astype(np.float64)

    def figures(sums: Floats) -> dict[str, Floats]:
        n, right = sums[..., 0], sums[..., 1]
        total, wrong = n.sum(axis=1), n - right
        below = np.cumsum(wrong, axis=1) - wrong / 2
        both = right.sum(axis=1) * wrong.sum(axis=1)
        area = (right * below).sum(axis=1)
        gaps = np.abs((right - n * levels) @ binned).sum(axis=1)
        return {
            "confidence_auroc": np.divide(
                area, both, out=np.full(len(both), np.nan), where=both > 0
            ),
            "ece": gaps / total,
        }

    return _Part(GroupedSums(groups, np.searchsorted(levels, confidence), columns), figures)
