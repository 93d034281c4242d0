"""What a loss hands back: the scalar to descend, and what to watch while doing so."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossTerms:
    """The outcome of one loss on one batch.

    ``total`` is a scalar with a graph, also where the batch holds no triplet. ``parts`` are its
    unweighted summands, detached. ``triplets``, ``active`` and ``saturated`` are counts (scalars):
    all triplets, those that are violated, and those whose gradient has vanished though they are.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    triplets: Tensor | None = None
    active: Tensor | None = None
    saturated: Tensor | None = None


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid entries; 0, still with a graph, where there is none."""
    total = torch.where(valid, values, 0.0).sum()
    return total / valid.sum().clamp(min=1)
