"""The area under the ROC curve: how surely one group scores above another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


def auroc(scores: Floats, positive: Bools) -> float | None:
    """The chance that a positive scores above a negative, a tie counting one half.

    None where there are no positives or no negatives.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auroc_within(
    scores: Floats, positive: Bools, strata: npt.NDArray[np.integer[Any]]
) -> float | None:
    """The same over pairs of one stratum (n,) alone, such as the fold whose model scored both.

    Scores of two models need not lie on one scale, and where classes are dealt out to folds, the
    model that saw fewer positives judges more of them: pairs across folds would give chance less
    than one half. None where no stratum has a pair.
    """
    total, pairs = 0.0, 0
    for stratum in np.unique(strata):
        mine = strata == stratum
        n_positive = int(positive[mine].sum())
        weight = n_positive * (int(mine.sum()) - n_positive)
        area = auroc(scores[mine], positive[mine])
        if area is not None:
            total, pairs = total + weight * area, pairs + weight
    return total / pairs if pairs else None
