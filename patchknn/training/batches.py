"""Batches of a run: so many images of so many classes of every task."""

from __future__ import annotations

from collections.abc import Collection

from patchknn.datasets.balanced import BalancedBatchSampler
from patchknn.training.context import Context
from patchknn.training.tasks import Task


class TaskBatches:
    """Each batch has a part of every task; a small data set comes round again within an epoch.

    Inputs that are ``left_out`` are in none. All processes of a run, and all its starts, must name
    the same, or their batches differ.
    """

    def __init__(self, context: Context, left_out: Collection[int]) -> None:
        kept = [i for i in context.train_numbers if i not in left_out]
        self._samplers = [_sampler(context, task, kept, None) for task in context.tasks]
        self._length = max(len(sampler) for sampler in self._samplers)
        if len(self._samplers) > 1:
            self._samplers = [_sampler(context, task, kept, self._length) for task in context.tasks]

    def __len__(self) -> int:
        return self._length

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """The numbers of the training inputs, batch by batch; the same for the same epoch."""
        for sampler in self._samplers:
            sampler.set_epoch(epoch)
        return [
            [number for part in parts for number in part]
            for parts in zip(*self._samplers, strict=True)
        ]


def _sampler(
    context: Context, task: Task, kept: list[int], length: int | None
) -> BalancedBatchSampler:
    own = set(context.of_task(task, kept))
    labels = context.labels[: context.n_train].tolist()
    sampled = [label if i in own else -1 for i, label in enumerate(labels)]
    classes, each = context.settings.batch_shape
    return BalancedBatchSampler(sampled, classes, each, context.settings.seed, batches=length)
