"""The score of every class, not of the winner alone: distance-weighted votes on whole columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]


class Voting(NamedTuple):
    """What the neighbours of n queries say, up to k of each.

    ``labels`` (n, k) are numbers of classes, negative for a neighbour without a label or none at
    all; ``distances`` (n, k) their L2, NaN for none; ``norms`` (n,) the lengths of the queries'
    features; ``predictions`` (n,) the classes that won, negative without votes.
    """

    labels: Ints
    distances: Floats
    norms: Floats
    predictions: Ints

    @property
    def votes(self) -> npt.NDArray[np.int64]:
        """How many neighbours (n,) have a label."""
        return np.asarray((self.labels >= 0).sum(axis=1))

    def select(self, chosen: npt.NDArray[Any]) -> Voting:
        """Those of the given numbers or truth values."""
        return Voting(*(column[chosen] for column in self))


def relative_distances(distances: Floats, norms: Floats) -> Floats:
    """Distances (n, k) over the length (n,) of the queries; 0 stays 0 though that be 0 too."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = distances / norms[:, None]
    return np.where(distances == 0, 0.0, ratios)


def vote_weights(distances: Floats, norms: Floats) -> Floats:
    """``votes.weights`` of many queries (n, k); 0 where there is no neighbour."""
    with np.errstate(over="ignore"):
        weights = 1.0 / (1.0 + np.square(relative_distances(distances, norms)))
    return np.nan_to_num(weights)


def class_scores(voting: Voting, classes: int) -> Floats:
    """The distance-weighted share (n, C) of the votes of each class.

    That of the prediction is the answer's ``weighted_confidence`` (search.votes). They need not
    add up to 1: what is missing lies in the distance of the neighbours.
    """
    shares = _summed(voting, classes) / np.maximum(voting.votes, 1)[:, None]
    return np.asarray(shares)


def class_probabilities(voting: Voting, priors: Floats) -> Floats:
    """A distribution (n, C) over the classes from the same votes; ``priors`` (C,) add up to 1.

    A vote gives its weight to its class, and what distance took from it to all classes by their
    prior, as does one more vote that every query has. So no class has nothing, classes without a
    vote are in the order of the archive's, and a query far from everything knows no more than that.
    """
    weights = _summed(voting, len(priors))
    votes = voting.votes[:, None]
    rest = votes + 1 - weights.sum(axis=1, keepdims=True)
    return np.asarray((weights + rest * priors) / (votes + 1))


def _summed(voting: Voting, classes: int) -> Floats:
    """The weights of the votes (n, C) of each class."""
    n = len(voting.labels)
    row, column = np.nonzero(voting.labels >= 0)
    weights = vote_weights(voting.distances, voting.norms)[row, column]
    cells = row * classes + voting.labels[row, column]
    sums = np.bincount(cells, weights=weights, minlength=n * classes)
    return sums.astype(np.float64).reshape(n, classes)
