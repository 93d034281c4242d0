"""Several data sets, one encoder (paper C): each is a task with classes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchknn.datasets.patches import Patch
from patchknn.training.selection import Selection

# What a data set is called that is the only one.
ONLY_TASK = "label"


@dataclass(frozen=True)
class Task:
    """One data set that the encoder learns from, with classes and a classifier of its own.

    ``first`` is the number of its first class when the classes of all tasks are counted through.
    """

    name: str
    class_names: tuple[str, ...]
    first: int = 0

    @property
    def last(self) -> int:
        """One after the number of its last class."""
        return self.first + len(self.class_names)


@dataclass(frozen=True)
class Lesson:
    """What a run learns from: the patches of all tasks, the ``n_train`` training ones first.

    ``labels`` (N,) int64 count the classes of all tasks through, −1 without. ``tasks`` has those
    that have a label.
    """

    patches: tuple[Patch, ...]
    labels: npt.NDArray[np.int64]
    n_train: int
    tasks: tuple[Task, ...]


def join(selections: Mapping[str, Selection]) -> Lesson:
    """Put the selections of the tasks together, in their order."""
    tasks: list[Task] = []
    first = 0
    train: list[tuple[Patch, int]] = []
    val: list[tuple[Patch, int]] = []
    for name, selection in selections.items():
        if selection.class_names:
            tasks.append(Task(name, selection.class_names, first))
        for members, known in ((train, selection.train), (val, selection.val)):
            counted = (n if n < 0 else n + first for n in selection.labels(known))
            members.extend(zip(known, counted, strict=True))
        first += len(selection.class_names)
    rows = [*train, *val]
    return Lesson(
        patches=tuple(patch for patch, _ in rows),
        labels=np.asarray([label for _, label in rows], np.int64),
        n_train=len(train),
        tasks=tuple(tasks),
    )
