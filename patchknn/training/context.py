"""What every stage of a run needs: the network, its images, its settings, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from patchknn.encoder.network import EncoderNetwork
from patchknn.training.images import ImageStore, Progress
from patchknn.training.settings import TrainingSettings


@dataclass(frozen=True)
class Context:
    """One run. ``labels`` (N,) int64 of the store's images, −1 without; the first ``n_train``
    images are for training, the rest for validation.

    ``mean`` and ``std`` per channel of images in [0, 1]; ``check`` raises StoppedError where an
    end was asked for; ``report`` takes one line; ``progress(items, total=, label=)`` wraps an
    iteration.
    """

    network: EncoderNetwork
    store: ImageStore
    labels: npt.NDArray[np.int64]
    n_train: int
    n_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    settings: TrainingSettings
    device: torch.device
    precision: str
    report: Callable[[str], None]
    progress: Progress
    check: Callable[[], None]

    @property
    def train_numbers(self) -> list[int]:
        """The numbers of the training images."""
        return list(range(self.n_train))

    @property
    def validation_numbers(self) -> list[int]:
        """The numbers of the validation images."""
        return list(range(self.n_train, len(self.labels)))
