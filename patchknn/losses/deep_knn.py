"""The deep kNN loss (paper B, Eq. 1 to 3) with neighbours searched in the batch (2.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import class_neighbours
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import LossTerms, masked_mean


@in_full_precision
def deep_knn(
    features: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    positives: int = 5,
    negatives: int = 5,
) -> LossTerms:
    """Mean over i, k, m of relu(||f_i − y_k|| + α − ||f_i − z_m||): features (B, D), labels (B,).

    y are the K nearest of the same class and z the M nearest of all others, found on detached
    features; terms that are 0 count in the mean, neighbours that are missing do not.
    """
    distances = euclidean_distances(features)
    near, far = class_neighbours(distances, labels, positives, negatives)
    valid = near.valid[:, :, None] & far.valid[:, None, :]
    margins = near.entries(distances)[:, :, None] + alpha - far.entries(distances)[:, None, :]
    total = masked_mean(functional.relu(margins), valid)
    return LossTerms(
        total,
        {"deep_knn": total.detach()},
        triplets=valid.sum(),
        active=((margins.detach() > 0) & valid).sum(),
    )
