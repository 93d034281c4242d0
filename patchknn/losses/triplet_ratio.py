"""L1, the triplet ratio loss (paper A, Eq. 1 and 2; Hoffer and Ailon 2015).

With s = exp(d_ap) / (exp(d_ap) + exp(d_an)) the printed norm reduces to 2·s², and s is
sigmoid(d_ap − d_an). The exponentials themselves overflow near d = 90 in float32.
"""

from __future__ import annotations

from torch import Tensor

from patchknn.losses.mining import PairedTriplets
from patchknn.losses.precision import in_full_precision
from patchknn.losses.terms import masked_mean

# Beyond this d_ap − d_an the gradient 4s²(1 − s) is below 1 % of its maximum of 16/27.
SATURATION = 6.5


@in_full_precision
def triplet_ratio(distances: Tensor, triplets: PairedTriplets) -> Tensor:
    """Mean of 2·sigmoid(d_ap − d_an)² over the triplets: distances (B, B) → scalar."""
    ratio = _violation(distances, triplets).sigmoid()
    return masked_mean(2 * ratio.square(), triplets.valid)


def violated(distances: Tensor, triplets: PairedTriplets) -> Tensor:
    """How many triplets have the positive farther than the negative; a scalar."""
    return ((_violation(distances.detach(), triplets) > 0) & triplets.valid).sum()


def saturated(distances: Tensor, triplets: PairedTriplets) -> Tensor:
    """How many triplets are violated so badly that their gradient has vanished; a scalar."""
    return ((_violation(distances.detach(), triplets) > SATURATION) & triplets.valid).sum()


def _violation(distances: Tensor, triplets: PairedTriplets) -> Tensor:
    return triplets.positives.entries(distances) - triplets.negatives.entries(distances)
