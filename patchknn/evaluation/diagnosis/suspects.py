"""Labels that are probably wrong, as a worklist: those that their neighbours speak against.

Confident learning (Northcutt, Jiang and Chuang 2021, J. Artif. Intell. Res. 70, section 3): of a
sample labelled i with out-of-sample probabilities p, another class j is suspected where
p_j ≥ t_j, and of all such classes p_j is the largest; t_j is the mean of p_j over the samples
labelled j (equations 1 and 2: what lies off the diagonal of the confident joint). Here p_j is the
sum of the weights by distance of the neighbours labelled j, over the k that were asked for: a
neighbour that is missing or has no label speaks for nobody, and p sums to less than 1. The sample
itself is none of its neighbours. Suspects are ordered by their margin p_j − p_i.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.outcomes import Outcomes

_BLOCK = 8192

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Suspects(NamedTuple):
    """Outcomes (m,) whose label is doubted, by number, the most doubtful first.

    ``suggested`` (m,) counts into the outcomes' classes; ``score`` (m,) float64 is the margin
    between it and the own label, above 0 to 1.
    """

    numbers: Ints
    suggested: Ints
    score: Floats


class Pairs(NamedTuple):
    """Outcomes (m,) whose nearest neighbour has another label, the closest pair first.

    ``closeness`` (m,) float64: L2 to that neighbour as a share of the query's length; 0 is a copy.
    """

    numbers: Ints
    closeness: Floats


def find_suspects(outcomes: Outcomes, known: Any = None) -> Suspects:
    """What confident learning suspects among outcomes with labels (see above).

    ``known`` (C,) bool, where it is given: which classes the archive has. A query of another class
    has no neighbours of its own, and is not judged. Memory is some hundred bytes a query, however
    many classes there are. Equal margins stay in the outcomes' order.
    """
    judged = np.ones(len(outcomes), bool)
    if known is not None:
        judged &= np.asarray(known, bool)[outcomes.label]
    thresholds = _thresholds(outcomes, judged)
    numbers, suggested, scores = [], [], []
    for rows, shares in _vote_shares(outcomes, judged):
        own = outcomes.label[rows]
        confident = np.where(shares >= thresholds, shares, 0.0)
        best = confident.argmax(axis=1)
        each = np.arange(len(rows))
        margin = confident[each, best] - shares[each, own]
        doubted = (best != own) & (margin > 0)
        numbers.append(rows[doubted])
        suggested.append(best[doubted])
        scores.append(margin[doubted])
    found = np.concatenate([np.zeros(0, np.int64), *numbers])
    score = np.concatenate([np.zeros(0), *scores])
    order = np.argsort(-score, kind="stable")
    labels = np.concatenate([np.zeros(0, np.int64), *suggested])
    return Suspects(found[order], labels[order], score[order])


def cross_class_pairs(outcomes: Outcomes, limit: int) -> Pairs:
    """The ``limit`` queries that lie closest to a row with another label, and to none nearer."""
    if not outcomes.k:
        return Pairs(np.zeros(0, np.int64), np.zeros(0))
    nearest, label = outcomes.neighbours[:, 0], outcomes.label
    rows = np.flatnonzero((nearest >= 0) & (nearest != label))
    distance = outcomes.distances[rows, 0]
    # Of a query of no length any distance is too far to speak of, but none.
    with np.errstate(divide="ignore", invalid="ignore"):
        closeness = np.where(distance == 0, 0.0, distance / outcomes.norm[rows])
    order = np.argsort(closeness, kind="stable")[:limit]
    return Pairs(rows[order], closeness[order])


def vote_weights(outcomes: Outcomes, rows: Ints) -> Floats:
    """The weight (m, k) of each neighbour's vote, as ``search.votes.weights`` gives it, 0 for none.

    1 / (1 + (d / ‖q‖)²), d being L2 and ‖q‖ the query's length. Where the search leaves nothing
    out, a row finds itself: that is none of its neighbours.
    """
    distances = outcomes.distances[rows]
    norm = outcomes.norm[rows, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(distances == 0, 0.0, distances / norm)
        weights = 1.0 / (1.0 + ratio * ratio)
    own = outcomes.rows[rows] == outcomes.row[rows, None]
    return np.where((outcomes.neighbours[rows] >= 0) & ~own, np.nan_to_num(weights), 0.0)


def _thresholds(outcomes: Outcomes, judged: npt.NDArray[np.bool_]) -> Floats:
    """t (C,): the mean share of each class over what is labelled so; of no such, out of reach."""
    classes = len(outcomes.classes)
    sums, counts = np.zeros(classes), np.zeros(classes)
    for rows, shares in _vote_shares(outcomes, judged):
        own = outcomes.label[rows]
        np.add.at(sums, own, shares[np.arange(len(rows)), own])
        np.add.at(counts, own, 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def _vote_shares(
    outcomes: Outcomes, judged: npt.NDArray[np.bool_]
) -> Iterator[tuple[Ints, Floats]]:
    """Numbers (m,) of outcomes with votes, and the share (m, C) of each class in them."""
    classes = len(outcomes.classes)
    block = max(_BLOCK * 16 // max(classes, 16), 1)
    voted = np.flatnonzero(judged & (outcomes.neighbours >= 0).any(axis=1))
    for start in range(0, len(voted), block):
        rows = voted[start : start + block]
        weights = vote_weights(outcomes, rows)
        shares = np.zeros((len(rows), classes))
        # What is no vote weighs nothing, whatever class it is added to.
        voters = np.maximum(outcomes.neighbours[rows], 0)
        np.add.at(shares, (np.arange(len(rows))[:, None], voters), weights)
        yield rows, shares / outcomes.k
