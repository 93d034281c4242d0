"""L2, the Cauchy cross-entropy (paper A, Eq. 3; Cao 2018).

log(d_ap/γ) + log(1 + γ/d_ap) is log(1 + d_ap/γ): printed as a sum it is NaN at d_ap = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchknn.losses.mining import PairedTriplets
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import masked_mean

SMALLEST_NEGATIVE_DISTANCE = 1e-6


@in_full_precision
def cauchy_cross_entropy(distances: Tensor, triplets: PairedTriplets, gamma: float) -> Tensor:
    """Mean of log1p(d_ap/γ) + log1p(γ/d_an) over the triplets: distances (B, B) → scalar.

    d_an counts as at least 1e-6. γ is K/2 in paper A, for K bits.
    """
    positive = triplets.positives.entries(distances)
    negative = triplets.negatives.entries(distances).clamp(min=SMALLEST_NEGATIVE_DISTANCE)
    values = torch.log1p(positive / gamma) + torch.log1p(gamma / negative)
    return masked_mean(values, triplets.valid)
