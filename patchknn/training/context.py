"""What every stage of a run needs: the network, its inputs, its settings, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from patchknn.encoder.network import EncoderNetwork
from patchknn.training.inputs import Inputs, Progress
from patchknn.training.ranks import Ranks
from patchknn.training.settings import TrainingSettings
from patchknn.training.tasks import Task


@dataclass(frozen=True)
class Context:
    """One run. ``labels`` (N,) int64 of the inputs, counted through all tasks, −1 without; the
    first ``n_train`` inputs are for training, the rest for validation.

    ``check`` is called by all processes at once: they tell each other which inputs are unreadable,
    and all raise StoppedError where one was asked to end, InputError where too many are
    unreadable. ``report`` takes one line;
    ``progress(items, total=, label=)`` wraps an iteration.
    """

    network: EncoderNetwork
    inputs: Inputs
    labels: npt.NDArray[np.int64]
    n_train: int
    tasks: tuple[Task, ...]
    settings: TrainingSettings
    device: torch.device
    precision: str
    ranks: Ranks
    report: Callable[[str], None]
    progress: Progress
    check: Callable[[], None]

    @property
    def train_numbers(self) -> list[int]:
        """The numbers of the training inputs."""
        return list(range(self.n_train))

    @property
    def validation_numbers(self) -> list[int]:
        """The numbers of the validation inputs."""
        return list(range(self.n_train, len(self.labels)))

    def of_task(self, task: Task, numbers: list[int]) -> list[int]:
        """Those of the numbers that carry a label of the task."""
        labels = self.labels[numbers] if numbers else np.zeros(0, np.int64)
        kept = (labels >= task.first) & (labels < task.last)
        return [number for number, keep in zip(numbers, kept.tolist(), strict=True) if keep]
