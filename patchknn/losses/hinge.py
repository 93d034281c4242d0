"""The hinge of a triplet loss, with a margin or soft, and its slope."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

# From here on log(1 + exp(x)) is x in float64 too; torch's own threshold of 20 leaves 1e-10.
_LINEAR_FROM = 40.0


def hinge(gap: Tensor, margin: float | None) -> Tensor:
    """relu(gap + margin), or log(1 + exp(gap)) without a margin (Hermans 2017, soft margin)."""
    if margin is None:
        return functional.softplus(gap, threshold=_LINEAR_FROM)
    return functional.relu(gap + margin)


def hinge_slope(gap: Tensor, margin: float | None) -> Tensor:
    """Its derivative; 0 at the edge, as that of ``relu``."""
    return gap.sigmoid() if margin is None else (gap + margin > 0).to(gap.dtype)
