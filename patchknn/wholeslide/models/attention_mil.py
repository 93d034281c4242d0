"""Gated attention over a slide's vectors (Ilse 2018, *Attention-based deep MIL*).

The slide is a bag of places, the answer a linear map of their weighted mean. A place is seen
through a layer with ReLU, as in their networks.
"""

from __future__ import annotations

from torch import Tensor, nn

from patchknn.wholeslide.models.gated_attention import GatedAttention
from patchknn.wholeslide.models.tissue import Standardised, gathered


class AttentionMIL(nn.Module):
    """Grids (B, D, H, W) → outputs (B, O)."""

    def __init__(self, dim: int, outputs: int, hidden: int = 128, dropout: float = 0.25) -> None:
        super().__init__()
        self.input = Standardised(dim)
        self.embedding = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.pooling = GatedAttention(hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids, zero where ``mask`` (B, H, W) is false → (B, O)."""
        vectors, owner = gathered(features, mask)
        embedded = self.embedding(self.input(vectors))
        result: Tensor = self.head(self.pooling(embedded, owner, len(mask)))
        return result

    def attention(self, features: Tensor, mask: Tensor) -> Tensor:
        """The weights a_k at their places (B, H, W), which sum to 1 over a slide."""
        vectors, owner = gathered(features, mask)
        embedded = self.embedding(self.input(vectors))
        weights = self.pooling.weights(embedded, owner, len(mask))
        return weights.new_zeros(mask.shape).masked_scatter(mask, weights)
