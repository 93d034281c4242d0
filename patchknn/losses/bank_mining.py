"""The neighbours of a batch's rows in a bank: found by matrix product, ranked by differences.

The product ||x||² + ||y||² − 2xy misjudges distances that are small beside the rows' norms, in
float32 by more than the spread of a class that training has drawn together. It is taken in
float64 where the device has that, and even so it only names candidates, some more than are
wanted; which of them are nearest is read from direct differences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchknn.losses.bank import FeatureBank
from patchknn.losses.mining import Neighbours, nearest
from patchknn.losses.pair_distances import pair_distances

_SPARE = 16
# Elements of the largest temporary: (block, D) of the bank and (B, block) of products.
_BLOCK_ELEMENTS = 1 << 20


@torch.no_grad()
def bank_neighbours(
    features: Tensor,
    labels: Tensor,
    numbers: Tensor,
    bank: FeatureBank,
    *,
    positives: int,
    negatives: int,
) -> tuple[Neighbours, Neighbours]:
    """The K nearest bank rows of the same class and the M nearest of all others (paper B, 2.1).

    features (B, D), labels (B,), numbers (B,) int64 as those of the bank; the indices are rows
    of the bank, ties in its order (of more identical rows than there are candidates, any). An
    entry of a row's own number is none of its neighbours. Memory grows with neither N nor B·N.
    """
    features = features.detach()
    wanted = (positives + _SPARE, negatives + _SPARE)
    same, other = _candidates(features, labels, numbers, bank, wanted)
    return (
        _reranked(features, bank, same, positives),
        _reranked(features, bank, other, negatives),
    )


def _candidates(
    features: Tensor, labels: Tensor, numbers: Tensor, bank: FeatureBank, wanted: tuple[int, int]
) -> list[Neighbours]:
    """For the same class and for all others, the bank rows of the smallest products."""
    # Distances do not change where all is moved, but rounding grows with what is squared.
    precision = _product_precision(features)
    centre = features.mean(dim=0).to(precision)
    anchors = features.to(precision) - centre
    squares = anchors.square().sum(dim=1, keepdim=True)
    block = max(1, _BLOCK_ELEMENTS // max(1, *features.shape))
    best = [_nothing(anchors) for _ in wanted]
    for begin in range(0, len(bank.labels), block):
        rows = slice(begin, begin + block)
        others = bank.features[rows].to(precision) - centre
        products = squares + others.square().sum(dim=1) - 2 * (anchors @ others.T)
        # Broken features must come before what is no candidate, as in every mining.
        products = products.nan_to_num(nan=torch.finfo(precision).max)
        same = labels[:, None] == bank.labels[rows]
        itself = numbers[:, None] == bank.numbers[rows]
        for place, (count, excluded) in enumerate(zip(wanted, (~same, same), strict=True)):
            keys = products.masked_fill(excluded | itself, torch.inf)
            best[place] = _merged(best[place], keys, begin, count)
    return [
        Neighbours(*_in_bank_order(index, keys.isfinite(), len(bank.labels)))
        for keys, index in best
    ]


def _product_precision(features: Tensor) -> torch.dtype:
    return torch.float32 if features.device.type == "mps" else torch.float64


def _nothing(features: Tensor) -> tuple[Tensor, Tensor]:
    shape = (len(features), 0)
    return features.new_zeros(shape), torch.zeros(shape, dtype=torch.int64, device=features.device)


def _merged(
    best: tuple[Tensor, Tensor], keys: Tensor, begin: int, count: int
) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest of those found so far and of one block's that begins there."""
    found = keys.topk(min(count, keys.shape[1]), dim=1, largest=False)
    keys = torch.cat([best[0], found.values], dim=1)
    index = torch.cat([best[1], found.indices + begin], dim=1)
    kept = keys.topk(min(count, keys.shape[1]), dim=1, largest=False)
    return kept.values, index.gather(1, kept.indices)


def _in_bank_order(index: Tensor, valid: Tensor, end: int) -> tuple[Tensor, Tensor]:
    order = torch.where(valid, index, end).argsort(dim=1)
    return index.gather(1, order), valid.gather(1, order)


def _reranked(
    features: Tensor, bank: FeatureBank, candidates: Neighbours, count: int
) -> Neighbours:
    exact = pair_distances(features, bank.features, candidates.index)
    chosen = nearest(exact, candidates.valid, count)
    return Neighbours(candidates.index.gather(1, chosen.index), chosen.valid)
