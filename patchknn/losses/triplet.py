"""The triplet loss on features, the usual peer of both papers, with the miner of one's choice."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from patchknn.losses.all_triplets import all_triplets
from patchknn.losses.distances import euclidean_distances
from patchknn.losses.hinge import hinge
from patchknn.losses.mining import (
    batch_hard_triplets,
    easy_positive_triplets,
    semi_hard_triplets,
)
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import LossTerms, masked_mean

Mining = Literal["batch-hard", "semi-hard", "easy-positive", "all"]

_MINERS = {
    "batch-hard": batch_hard_triplets,
    "semi-hard": semi_hard_triplets,
    "easy-positive": easy_positive_triplets,
}


@in_full_precision
def triplet(
    features: Tensor,
    labels: Tensor,
    *,
    mining: Mining = "semi-hard",
    margin: float | None = None,
    only_active: bool = False,
) -> LossTerms:
    """Mean over triplets of relu(d_ap − d_an + margin): features (B, D), labels (B,).

    ``batch-hard`` (Hermans 2017) gives each anchor its farthest positive and nearest negative;
    it gets stuck or collapses easily. ``semi-hard`` (Schroff 2015) gives each positive pair the
    nearest negative beyond it. ``easy-positive`` (Xuan 2020, "Improved embeddings with easy
    positive triplet mining") gives each anchor its nearest positive and the nearest negative
    beyond that, so that a class need not become one cluster; the paper's softmax of similarities
    is not part of it. ``all`` takes every triplet.

    Without a margin the hinge is soft, log(1 + exp(d_ap − d_an)). ``only_active`` leaves terms
    that are 0 out of the mean, as pytorch-metric-learning does.
    """
    distances = euclidean_distances(features)
    if mining == "all":
        total, triplets, active = all_triplets(distances, labels, margin, only_active=only_active)
        return LossTerms(total, {"triplet": total.detach()}, triplets=triplets, active=active)
    mined = _MINERS[mining](distances, labels)
    gap = mined.positives.entries(distances) - mined.negatives.entries(distances)
    values = hinge(gap, margin)
    counted = mined.valid & (values.detach() > 0) if only_active else mined.valid
    total = masked_mean(values, counted)
    return LossTerms(
        total,
        {"triplet": total.detach()},
        triplets=mined.valid.sum(),
        active=((gap.detach() + (margin or 0.0) > 0) & mined.valid).sum(),
    )
