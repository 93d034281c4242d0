"""Gated attention over a slide's vectors (Ilse 2018, *Attention-based deep MIL*).

The slide is a bag of places, the answer a linear map of their weighted mean z = Σ a_k h_k (eq. 7),
with weights by gated attention a_k ∝ exp(wᵀ(tanh(V h_k) ⊙ sigm(U h_k))) (eq. 9, whose ungated form
is eq. 8). h_k is a layer with ReLU on the place's vector, as their networks have it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchknn.wholeslide.models.tissue import Standardised, gathered, softmax_of_slides


class AttentionMIL(nn.Module):
    """Grids (B, D, H, W) → outputs (B, O)."""

    def __init__(self, dim: int, outputs: int, hidden: int = 128, dropout: float = 0.25) -> None:
        super().__init__()
        self.input = Standardised(dim)
        self.embedding = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.tanh_part = nn.Linear(hidden, hidden)
        self.gate_part = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids, zero where ``mask`` (B, H, W) is false → (B, O)."""
        vectors, owner = gathered(features, mask)
        embedded, weights = self._attended(vectors, owner, len(mask))
        weighted = weights[:, None] * embedded
        bags = weighted.new_zeros(len(mask), weighted.shape[1]).index_add(0, owner, weighted)
        result: Tensor = self.head(bags)
        return result

    def attention(self, features: Tensor, mask: Tensor) -> Tensor:
        """The weights a_k at their places (B, H, W), which sum to 1 over a slide."""
        vectors, owner = gathered(features, mask)
        _, weights = self._attended(vectors, owner, len(mask))
        return weights.new_zeros(mask.shape).masked_scatter(mask, weights)

    def _attended(self, vectors: Tensor, owner: Tensor, slides: int) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(self.input(vectors))
        gated = torch.tanh(self.tanh_part(embedded)) * torch.sigmoid(self.gate_part(embedded))
        return embedded, softmax_of_slides(self.score(gated)[:, 0], owner, slides)
