"""Pooling by gated attention (Ilse 2018, *Attention-based deep MIL*, eqs. 7 and 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchknn.wholeslide.models.tissue import softmax_of_slides, sums_of_slides


class GatedAttention(nn.Module):
    """The weighted mean z = Σ a_k h_k (eq. 7) of a slide's vectors h_k.

    a_k ∝ exp(wᵀ(tanh(V h_k) ⊙ sigm(U h_k))) (eq. 9, whose ungated form is eq. 8), with biases.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.tanh_part = nn.Linear(dim, dim)
        self.gate_part = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, vectors: Tensor, owner: Tensor, slides: int) -> Tensor:
        """Vectors (N, D) of slides ``owner`` (N,) → (B, D); 0 of a slide without any."""
        weighted = self.weights(vectors, owner, slides)[:, None] * vectors
        return sums_of_slides(weighted, owner, slides)

    def weights(self, vectors: Tensor, owner: Tensor, slides: int) -> Tensor:
        """The a_k (N,), which sum to 1 over each slide."""
        gated = torch.tanh(self.tanh_part(vectors)) * torch.sigmoid(self.gate_part(vectors))
        return softmax_of_slides(self.score(gated)[:, 0], owner, slides)
