"""L3, the Cauchy quantisation loss (paper A, Eq. 4), as printed and as it must be.

The print has ||f − 1||, which pulls every bit to +1 and so collapses the codes while kNN
accuracy hides it. Deep Cauchy Hashing (Cao 2018) has || |f| − 1 ||: to the nearer of both signs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from patchknn.losses.distances import euclidean_norm
from patchknn.losses.mining import PairedTriplets
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import masked_mean

Quantization = Literal["sound", "literal"]


@in_full_precision
def cauchy_quantization(
    hash_vectors: Tensor,
    triplets: PairedTriplets,
    gamma: float,
    quantization: Quantization = "sound",
) -> Tensor:
    """Mean over the triplets of Σ over a, p, n of log1p(|| |u| − 1 ||₂ / γ).

    hash_vectors (B, K) → scalar. ``literal`` is the printed form, ||u − 1||, for reference.
    """
    towards = hash_vectors.abs() if quantization == "sound" else hash_vectors
    rows = torch.log1p(euclidean_norm(towards - 1) / gamma)
    # gather's backward pass is deterministic; that of rows[index] is not with several threads.
    table = rows.expand(len(rows), -1)
    values = rows[:, None] + triplets.positives.entries(table) + triplets.negatives.entries(table)
    return masked_mean(values, triplets.valid)
