"""Batches of a run: so many images of so many classes of every task."""

from __future__ import annotations

from patchknn.datasets.balanced import BalancedBatchSampler
from patchknn.training.context import Context
from patchknn.training.tasks import Task


class TaskBatches:
    """Each batch has a part of every task; a small data set comes round again within an epoch."""

    def __init__(self, context: Context) -> None:
        self._samplers = [_sampler(context, task, None) for task in context.tasks]
        self._length = max(len(sampler) for sampler in self._samplers)
        if len(self._samplers) > 1:
            self._samplers = [_sampler(context, task, self._length) for task in context.tasks]

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


def _sampler(context: Context, task: Task, length: int | None) -> BalancedBatchSampler:
    readable = set(context.inputs.readable(context.of_task(task, context.train_numbers)))
    labels = context.labels[: context.n_train].tolist()
    sampled = [label if i in readable else -1 for i, label in enumerate(labels)]
    classes, each = context.settings.batch_shape
    return BalancedBatchSampler(sampled, classes, each, context.settings.seed, batches=length)
