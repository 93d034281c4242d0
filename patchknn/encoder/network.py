"""The network: a backbone, a linear hash layer on its features, a linear classifier on that."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class EncoderOutput(NamedTuple):
    """What one forward pass gives: (B, D) features, (B, K) hash vectors, (B, C) logits."""

    features: Tensor
    hash_vectors: Tensor
    logits: Tensor | None


class EncoderNetwork(nn.Module):
    """Backbone → features → hash vectors → class scores, as in Peng 2019, section 2.2.

    ``backbone`` maps (B, 3, S, S) float32 images, already normalised, to (B, ``feature_dim``); it
    is a ``Chained`` where an MLP stands behind it, and a ``FeatureMLP`` (or nothing, an
    ``nn.Identity``) where (B, D) stored features go in instead of images.
    Both heads are linear, so that NumPy can apply them to stored features; ``n_classes`` of 0
    leaves the classifier away.
    """

    def __init__(self, backbone: nn.Module, feature_dim: int, bits: int, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.hash_layer = nn.Linear(feature_dim, bits)
        self.classifier = nn.Linear(bits, n_classes) if n_classes > 0 else None

    def forward(self, images: Tensor) -> EncoderOutput:
        """Normalised images (B, 3, S, S) float32, or what goes in → features, hashes, logits."""
        return self.heads(self.backbone(images))

    def heads(self, features: Tensor) -> EncoderOutput:
        """The same from features (B, D) that are already there."""
        hash_vectors = self.hash_layer(features)
        logits = None if self.classifier is None else self.classifier(hash_vectors)
        return EncoderOutput(features, hash_vectors, logits)
