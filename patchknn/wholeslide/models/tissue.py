"""The tissue of a batch of grids: standardised, gathered as vectors, and pooled slide by slide."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from patchknn.encoder.standardisation import standardisation


class Standardised(nn.Module):
    """Features standardised by ``fit``, without which they pass as they are."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, vectors: npt.NDArray[Any]) -> None:
        """Take mean and scale of training vectors (N, D); errors of ``standardisation``."""
        mean, scale = standardisation(vectors)
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.scale.copy_(torch.from_numpy(scale))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, D) → (N, D)."""
        return (vectors - self.mean) / self.scale

    def grids(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids (B, D, H, W) → the same, still zero where ``mask`` (B, H, W) is false."""
        shape = (1, -1, 1, 1)
        standardised = (features - self.mean.view(shape)) / self.scale.view(shape)
        return standardised * mask[:, None]


def gathered(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (N, D) of all tissue places of grids (B, D, H, W), and whose they are (N,)."""
    return features.movedim(1, 3)[mask], mask.nonzero()[:, 0]


def sums_of_slides(vectors: Tensor, owner: Tensor, slides: int) -> Tensor:
    """Sums (B, D) of the vectors (N, D) of each slide, at least in float32.

    A slide has thousands of places: in bfloat16 a sum grows no more after the first few hundred.
    """
    vectors = _summable(vectors)
    return vectors.new_zeros(slides, vectors.shape[1]).index_add(0, owner, vectors)


def _summable(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_of_slides(vectors: Tensor, owner: Tensor, slides: int) -> Tensor:
    """Means (B, D) of the vectors (N, D) of each slide; 0 of a slide without any."""
    sums = sums_of_slides(vectors, owner, slides)
    counts = torch.bincount(owner, minlength=slides).clamp(min=1)
    return sums / counts[:, None]


def max_of_slides(vectors: Tensor, owner: Tensor, slides: int) -> Tensor:
    """The largest of each element (B, D) over the vectors (N, D) of each slide; 0 without any."""
    place = owner[:, None].expand_as(vectors)
    start = vectors.new_full((slides, vectors.shape[1]), -torch.inf)
    largest = start.scatter_reduce(0, place, vectors, "amax")
    return torch.where(largest.isinf(), 0.0, largest)


def softmax_of_slides(scores: Tensor, owner: Tensor, slides: int) -> Tensor:
    """Weights (N,) of the scores (N,), which sum to 1 over each slide; float32 or more."""
    scores = _summable(scores)
    start = scores.new_full((slides,), -torch.inf)
    largest = start.scatter_reduce(0, owner, scores.detach(), "amax")
    weights = (scores - largest[owner]).exp()
    sums = weights.new_zeros(slides).index_add(0, owner, weights)
    return weights / sums[owner]
