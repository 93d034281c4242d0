"""Batches over several tasks: a part of each in every batch, small data sets again and again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from patchknn.training.batches import TaskBatches
from patchknn.training.context import Context
from patchknn.training.tasks import Task


def _context(labels, tasks, shape, seed=0):
    context = SimpleNamespace(
        labels=np.asarray(labels),
        n_train=len(labels),
        train_numbers=list(range(len(labels))),
        tasks=tasks,
        settings=SimpleNamespace(batch_shape=shape, seed=seed),
    )
    context.of_task = lambda task, numbers: Context.of_task(context, task, numbers)
    return context


def test_every_batch_has_classes_and_images_of_every_task():
    labels = [0] * 40 + [1] * 40 + [2] * 5 + [3] * 5 + [4] * 5
    tasks = (Task("large", ("a", "b"), 0), Task("small", ("c", "d", "e"), 2))
    batches = TaskBatches(_context(labels, tasks, (2, 4)), left_out=())
    epoch = batches.of_epoch(1)
    assert len(epoch) == len(batches) == 10  # the large one is seen once
    for batch in epoch:
        found = np.bincount(np.asarray(labels)[batch], minlength=5)
        assert found[:2].tolist() == [4, 4]
        assert sorted(found[2:].tolist()) == [0, 4, 4]
        assert len(set(batch)) == len(batch)
    seen = {number for batch in epoch for number in batch}
    assert seen == set(range(len(labels)))


def test_the_same_epoch_gives_the_same_batches_without_the_unreadable():
    tasks = (Task("label", ("a", "b"), 0),)
    context = _context([0, 1] * 20, tasks, (2, 4))
    first, again = (TaskBatches(context, {0, 7}).of_epoch(3) for _ in range(2))
    assert first == again != TaskBatches(context, {0, 7}).of_epoch(4)
    assert {0, 7}.isdisjoint(number for batch in first for number in batch)
