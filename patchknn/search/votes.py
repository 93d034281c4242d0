"""From neighbours to a class and a confidence (paper A, section 2.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Tally(NamedTuple):
    """A vote: ``votes`` by class, the prediction first; both confidences in [0, 1]."""

    prediction: str | None
    confidence: float | None
    weighted_confidence: float | None
    votes: dict[str, int]

    @property
    def n_votes(self) -> int:
        """How many neighbours had a label."""
        return sum(self.votes.values())


def tally(labels: Sequence[str | None], distances: Sequence[float], norm: float) -> Tally:
    """Let neighbours vote: ``labels`` (n,), ``distances`` (n,) L2 of the features, ``norm`` of the
    query's.

    A neighbour without a label casts no vote. The class with most votes is the prediction, a tie
    going to the smaller mean distance, then to the name that sorts first. The confidence is the
    prediction's share of the votes; in the weighted one each of its votes counts by its weight
    (see ``weights``), so that a query which lies far from all it resembles is not sure, however
    much they agree.
    """
    voters = [(label, d) for label, d in zip(labels, distances, strict=True) if label is not None]
    if not voters:
        return Tally(None, None, None, {})
    by_class: dict[str, list[float]] = {}
    for label, distance in voters:
        by_class.setdefault(label, []).append(distance)
    ranked = sorted(by_class, key=lambda name: (-len(by_class[name]), _mean(by_class[name]), name))
    prediction = ranked[0]
    won = math.fsum(weights(by_class[prediction], norm))
    return Tally(
        prediction=prediction,
        confidence=len(by_class[prediction]) / len(voters),
        weighted_confidence=won / len(voters),
        votes={name: len(by_class[name]) for name in ranked},
    )


def weights(distances: Sequence[float], norm: float) -> list[float]:
    """The weight of each vote: 1 / (1 + (d / ‖q‖)²), a Cauchy kernel as wide as the query is long.

    It lies between 0 and 1, does not hang on the unit of the features, and a neighbour at
    distance 0 weighs 1, not infinitely much. The query's own length is known for every query and
    needs no statistic of the archive, which would change with each addition.
    """
    # The product of what is infinite is so too, where a power would be an error; and the smallest
    # numbers there are have a ratio, but no hypotenuse of their own.
    ratios = [0.0 if d == 0 else math.inf if norm == 0 else d / norm for d in distances]
    return [1.0 / (1.0 + ratio * ratio) for ratio in ratios]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
