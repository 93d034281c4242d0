"""Which rows of a batch meet in a loss: never a row with itself, never one of the wrong class.

Everything is (B, R) with a mask, so that a missing neighbour costs no synchronisation with a
GPU and never stands in as an infinity or as a row of the wrong class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchknn.losses.ranking import first_columns


@dataclass(frozen=True)
class Neighbours:
    """For each of B anchors up to R other rows, best first.

    ``index`` (B, R) int64 rows of the batch; ``valid`` (B, R) bool, False where there is none.
    """

    index: Tensor
    valid: Tensor

    def entries(self, matrix: Tensor) -> Tensor:
        """Entries of a (B, B) matrix from each anchor to its neighbours: (B, R)."""
        return matrix.gather(1, self.index)

    def first(self, count: int) -> Neighbours:
        """The best ``count`` of each anchor."""
        return Neighbours(self.index[:, :count], self.valid[:, :count])


@dataclass(frozen=True)
class PairedTriplets:
    """Anchor i meets positive ``positives.index[i, r]`` and negative ``negatives.index[i, r]``.

    Only where ``valid[i, r]``; all are (B, R).
    """

    positives: Neighbours
    negatives: Neighbours
    valid: Tensor

    def indices(self) -> Tensor:
        """The triplets as rows (anchor, positive, negative): (T, 3) int64."""
        anchor, rank = self.valid.nonzero(as_tuple=True)
        return torch.stack(
            [anchor, self.positives.index[anchor, rank], self.negatives.index[anchor, rank]], dim=1
        )


def same_class(labels: Tensor) -> Tensor:
    """Pairs of different rows of one class: labels (B,) → (B, B) bool, False on the diagonal."""
    pairs = labels[:, None] == labels[None, :]
    return pairs.fill_diagonal_(fill_value=False)


def other_class(labels: Tensor) -> Tensor:
    """Pairs of rows of different classes: labels (B,) → (B, B) bool."""
    return labels[:, None] != labels[None, :]


@torch.no_grad()
def nearest(distances: Tensor, candidates: Tensor, count: int) -> Neighbours:
    """The ``count`` nearest candidates of each row, ties in batch order.

    distances (B, B) float, candidates (B, B) bool.
    """
    return _ranked(distances.detach(), candidates, count)


@torch.no_grad()
def farthest(distances: Tensor, candidates: Tensor, count: int) -> Neighbours:
    """The ``count`` farthest candidates of each row, ties in batch order."""
    return _ranked(-distances.detach(), candidates, count)


def _ranked(keys: Tensor, candidates: Tensor, count: int) -> Neighbours:
    # A candidate that is infinite or NaN must still come before what is none: hidden behind the
    # mask, broken features would give a loss that looks healthy.
    finite = keys.nan_to_num(nan=torch.finfo(keys.dtype).max)
    index = first_columns(torch.where(candidates, finite, torch.inf), count)
    return Neighbours(index, candidates.gather(1, index))


def one_to_one_triplets(distances: Tensor, labels: Tensor) -> PairedTriplets:
    """Paper A, 2.1: each anchor's positives paired one to one with as many nearest negatives.

    A batch of n classes × k rows gives n·k·(k − 1) triplets. The paper leaves open which
    positive meets which negative; here the farthest meets the nearest, and so on inwards, so
    that the pairing does not hang on the order of the batch. Where an anchor has fewer
    negatives than positives, the nearest positives remain unpaired.
    """
    same = same_class(labels)
    ranks = most_candidates(same)
    return _pair(farthest(distances, same, ranks), nearest(distances, other_class(labels), ranks))


def batch_hard_triplets(distances: Tensor, labels: Tensor) -> PairedTriplets:
    """Hermans 2017: each anchor with its farthest positive and its nearest negative; R is 1."""
    return _pair(
        farthest(distances, same_class(labels), 1), nearest(distances, other_class(labels), 1)
    )


def class_neighbours(
    distances: Tensor, labels: Tensor, positives: int, negatives: int
) -> tuple[Neighbours, Neighbours]:
    """Paper B, 2.1: the K nearest of the same class and the M nearest of all others."""
    return (
        nearest(distances, same_class(labels), positives),
        nearest(distances, other_class(labels), negatives),
    )


@torch.no_grad()
def semi_hard_triplets(distances: Tensor, labels: Tensor) -> PairedTriplets:
    """Schroff 2015: every positive pair with the nearest negative that is farther than it.

    Where no negative is farther, the farthest one serves.
    """
    distances = distances.detach()
    same, candidates = same_class(labels), other_class(labels)
    positives = nearest(distances, same, most_candidates(same))
    ascending = nearest(distances, candidates, len(labels))
    # Sorted distances of the negatives, then infinity: the first that exceeds d_ap.
    ordered = torch.where(ascending.valid, ascending.entries(distances), torch.inf)
    place = torch.searchsorted(ordered, positives.entries(distances).contiguous(), right=True)
    count = candidates.sum(dim=1, keepdim=True)
    rank = torch.minimum(place, count - 1).clamp(min=0)
    negatives = Neighbours(ascending.index.gather(1, rank), (count > 0).expand_as(rank))
    return _pair(positives, negatives)


@torch.no_grad()
def easy_positive_triplets(distances: Tensor, labels: Tensor) -> PairedTriplets:
    """Xuan 2020: each anchor's nearest positive with the nearest negative beyond it; R is 1.

    Where no negative is farther than the nearest positive, the anchor is left out, as the
    authors do.
    """
    distances = distances.detach()
    positives = nearest(distances, same_class(labels), 1)
    # An anchor without a positive compares with whatever stands in; it is not valid anyway.
    beyond = other_class(labels) & (distances > positives.entries(distances))
    return _pair(positives, nearest(distances, beyond, 1))


def most_candidates(candidates: Tensor) -> int:
    """How many columns hold all candidates of any row: candidates (B, B) bool.

    On a GPU one less than B, as the diagonal is none: asking would wait for it, and there the
    columns left over cost next to nothing.
    """
    if candidates.device.type != "cpu" or len(candidates) == 0:
        return max(len(candidates) - 1, 0)
    return int(candidates.sum(dim=1).max())


def _pair(positives: Neighbours, negatives: Neighbours) -> PairedTriplets:
    return PairedTriplets(positives, negatives, positives.valid & negatives.valid)
