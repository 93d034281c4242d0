"""The network: a backbone, a linear hash layer on its features, linear classifiers on that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional


class EncoderOutput(NamedTuple):
    """What one forward pass gives: (B, D) features, (B, K) hash vectors, logits of each task.

    ``logits`` holds one (B, C) per task, and nothing where there is no classifier.
    """

    features: Tensor
    hash_vectors: Tensor
    logits: tuple[Tensor, ...]


class EncoderNetwork(nn.Module):
    """Backbone → features → hash vectors → class scores, as in Peng 2019, section 2.2.

    ``backbone`` maps (B, 3, S, S) float32 images, already normalised, to (B, ``feature_dim``); it
    is a ``Chained`` where an MLP stands behind it, and a ``FeatureMLP`` (or nothing, an
    ``nn.Identity``) where (B, D) stored features go in instead of images. All heads are linear, so
    that NumPy can apply them to stored features; ``classes`` holds the number of classes of each
    task (Tellez 2020: several data sets share one encoder). Where it is ``normalized``, features
    are of unit length: a loss that compares directions is of use to a search by L2 only if that
    compares directions too.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        bits: int,
        classes: Sequence[int],
        *,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalized = normalized
        self.hash_layer = nn.Linear(feature_dim, bits)
        self.classifiers = nn.ModuleList(nn.Linear(bits, count) for count in classes)

    @property
    def task_layers(self) -> list[nn.Linear]:
        """The classifiers, one per task."""
        return [layer for layer in self.classifiers if isinstance(layer, nn.Linear)]

    def forward(self, images: Tensor) -> EncoderOutput:
        """Normalised images (B, 3, S, S) float32, or what goes in → features, hashes, logits."""
        return self.heads(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S), or what goes in → features (B, D)."""
        return self.finished(self.backbone(images))

    def finished(self, features: Tensor) -> Tensor:
        """What comes out of the backbone (B, D), or means of it → features (B, D)."""
        return functional.normalize(features.float(), dim=1) if self.normalized else features

    def heads(self, features: Tensor) -> EncoderOutput:
        """The same from features (B, D) that are already there."""
        hash_vectors = self.hash_layer(features)
        logits = tuple(classifier(hash_vectors) for classifier in self.classifiers)
        return EncoderOutput(features, hash_vectors, logits)
