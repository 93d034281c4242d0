"""The batch-hard triplet loss (Hermans 2017), the usual peer of both papers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import batch_hard_triplets
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import LossTerms, masked_mean


@in_full_precision
def batch_hard(
    features: Tensor,
    labels: Tensor,
    *,
    margin: float | None = None,
    only_active: bool = False,
) -> LossTerms:
    """Mean over anchors of relu(d_ap − d_an + margin), p the farthest and n the nearest.

    features (B, D), labels (B,). Without a margin the hinge is soft, log(1 + exp(d_ap − d_an)):
    it does not get stuck with all distances collapsed at the margin. ``only_active`` leaves
    terms that are 0 out of the mean, as pytorch-metric-learning does.
    """
    distances = euclidean_distances(features)
    triplets = batch_hard_triplets(distances, labels)
    gap = triplets.positives.entries(distances) - triplets.negatives.entries(distances)
    values = functional.softplus(gap) if margin is None else functional.relu(gap + margin)
    counted = triplets.valid & (values.detach() > 0) if only_active else triplets.valid
    total = masked_mean(values, counted)
    return LossTerms(
        total,
        {"batch_hard": total.detach()},
        triplets=triplets.valid.sum(),
        active=((gap.detach() + (margin or 0.0) > 0) & triplets.valid).sum(),
    )
