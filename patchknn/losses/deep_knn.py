"""The deep kNN loss (paper B, Eq. 1 to 3), neighbours searched in the batch or in a bank (2.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from patchknn.losses.bank import FeatureBank
from patchknn.losses.bank_mining import bank_neighbours
from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import class_neighbours
from patchknn.losses.pair_distances import pair_distances
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
    bank: FeatureBank | None = None,
    numbers: Tensor | None = None,
) -> LossTerms:
    """Mean over i, k, m of relu(||f_i − y_k|| + α − ||f_i − z_m||): features (B, D), labels (B,).

    y are the K nearest of the same class and z the M nearest of all others, found on detached
    features; terms that are 0 count in the mean, neighbours that are missing do not.

    With a ``bank`` the neighbours are its rows, which get no gradient, instead of the batch's;
    ``numbers`` (B,) int64 then say which of its entries are the rows themselves, and are never
    their own neighbours (ValueError without).
    """
    if bank is None:
        distances = euclidean_distances(features)
        near, far = class_neighbours(distances, labels, positives, negatives)
        to_near, to_far = near.entries(distances), far.entries(distances)
    else:
        if numbers is None:
            message = "deep kNN with a bank needs the numbers of the batch's images"
            raise ValueError(message)
        near, far = bank_neighbours(
            features, labels, numbers, bank, positives=positives, negatives=negatives
        )
        to_near = pair_distances(features, bank.features, near.index)
        to_far = pair_distances(features, bank.features, far.index)
    valid = near.valid[:, :, None] & far.valid[:, None, :]
    margins = to_near[:, :, None] + alpha - to_far[:, None, :]
    total = masked_mean(functional.relu(margins), valid)
    return LossTerms(
        total,
        {"deep_knn": total.detach()},
        triplets=valid.sum(),
        active=((margins.detach() > 0) & valid).sum(),
    )
