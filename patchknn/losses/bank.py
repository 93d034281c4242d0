"""A bank of features: where to look for neighbours that are not in the batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class FeatureBank:
    """Features of a whole training set as they were at some step; constants to any loss.

    ``features`` (N, D) float without a graph, ``labels`` (N,) int64, ``numbers`` (N,) int64 of
    the images that they are of, by which a row of the batch knows its own entry; all on one
    device. Raises ValueError where these do not fit together.
    """

    features: Tensor
    labels: Tensor
    numbers: Tensor

    def __post_init__(self) -> None:
        rows = self.features.shape[:1]
        if self.features.ndim != 2 or not rows == self.labels.shape == self.numbers.shape:
            message = (
                f"features {tuple(self.features.shape)}, labels {tuple(self.labels.shape)} and "
                f"numbers {tuple(self.numbers.shape)} of a bank do not fit together"
            )
            raise ValueError(message)
        if self.features.requires_grad:
            message = "the features of a bank are constants: detach them"
            raise ValueError(message)
