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


def tally(labels: Sequence[str | None], distances: Sequence[float]) -> Tally:
    """Let neighbours vote: ``labels`` (n,), ``distances`` (n,) L2 of the features.

    A neighbour without a label casts no vote. The class with most votes is the prediction, a tie
    going to the smaller mean distance, then to the name that sorts first. The confidence is the
    prediction's share of the votes; the weighted one its share of the weights (see ``weights``).
    """
    voters = [(label, d) for label, d in zip(labels, distances, strict=True) if label is not None]
    if not voters:
        return Tally(None, None, None, {})
    by_class: dict[str, list[float]] = {}
    for label, distance in voters:
        by_class.setdefault(label, []).append(distance)
    ranked = sorted(by_class, key=lambda name: (-len(by_class[name]), _mean(by_class[name]), name))
    prediction = ranked[0]
    shares = weights([distance for _, distance in voters])
    won = math.fsum(
        share for share, (label, _) in zip(shares, voters, strict=True) if label == prediction
    )
    return Tally(
        prediction=prediction,
        confidence=len(by_class[prediction]) / len(voters),
        weighted_confidence=min(won / math.fsum(shares), 1.0),
        votes={name: len(by_class[name]) for name in ranked},
    )


def weights(distances: Sequence[float]) -> list[float]:
    """The weight of each vote: 1 / (1 + (d / mean d)²), a Cauchy kernel as wide as the mean.

    It lies between 0 and 1, does not hang on the unit of the features, and a neighbour at
    distance 0 weighs 1, not infinitely much. Where all distances are 0 all votes weigh the same.
    """
    mean = _mean(distances)
    if mean == 0:
        return [1.0] * len(distances)
    return [1 / (1 + (distance / mean) ** 2) for distance in distances]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
