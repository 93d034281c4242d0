"""The triplet loss on features, the usual peer of both papers, with the miner of one's choice."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import batch_hard_triplets, semi_hard_triplets
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import LossTerms, masked_mean

Mining = Literal["batch-hard", "semi-hard"]


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
    on features that were not trained before it tends to collapse. ``semi-hard`` (Schroff 2015)
    gives each positive pair the nearest negative beyond it. Without a margin the hinge is soft,
    log(1 + exp(d_ap − d_an)). ``only_active`` leaves terms that are 0 out of the mean, as
    pytorch-metric-learning does.
    """
    distances = euclidean_distances(features)
    mine = batch_hard_triplets if mining == "batch-hard" else semi_hard_triplets
    triplets = mine(distances, labels)
    gap = triplets.positives.entries(distances) - triplets.negatives.entries(distances)
    values = functional.softplus(gap) if margin is None else functional.relu(gap + margin)
    counted = triplets.valid & (values.detach() > 0) if only_active else triplets.valid
    total = masked_mean(values, counted)
    return LossTerms(
        total,
        {"triplet": total.detach()},
        triplets=triplets.valid.sum(),
        active=((gap.detach() + (margin or 0.0) > 0) & triplets.valid).sum(),
    )
