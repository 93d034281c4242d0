"""The mean of a slide's vectors and a linear map: the baseline that knows no rare tissue."""

from __future__ import annotations

from torch import Tensor, nn

from patchknn.wholeslide.models.tissue import Standardised, gathered, mean_of_slides


class MeanPooling(nn.Module):
    """Grids (B, D, H, W) → outputs (B, O)."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.input = Standardised(dim)
        self.head = nn.Linear(dim, outputs)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids, zero where ``mask`` (B, H, W) is false → (B, O)."""
        vectors, owner = gathered(features, mask)
        result: Tensor = self.head(mean_of_slides(self.input(vectors), owner, len(mask)))
        return result
