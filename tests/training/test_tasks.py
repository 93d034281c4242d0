"""Several data sets put together: classes counted through, training rows first."""

from __future__ import annotations

from pathlib import Path

from patchknn.datasets.patches import Patch
from patchknn.training.selection import Selection
from patchknn.training.tasks import Task, join


def _patch(name, label):
    return Patch(name, Path(name), "image", label=label)


def test_classes_are_counted_through_and_training_rows_come_first():
    cells = Selection(
        (_patch("a", "x"), _patch("b", "y")), (_patch("c", "y"),), class_names=("x", "y")
    )
    organs = Selection(
        (_patch("d", "lung"),), (_patch("e", "colon"),), class_names=("colon", "liver", "lung")
    )
    lesson = join({"cells": cells, "organs": organs})
    assert [patch.source for patch in lesson.patches] == list("abdce")
    assert lesson.n_train == 3
    assert lesson.labels.tolist() == [0, 1, 4, 1, 2]
    assert lesson.tasks == (
        Task("cells", ("x", "y"), 0),
        Task("organs", ("colon", "liver", "lung"), 2),
    )
    assert [task.last for task in lesson.tasks] == [2, 5]


def test_what_has_no_label_is_no_task():
    unknown = Selection((_patch("a", None), _patch("b", None)), (), class_names=())
    lesson = join({"label": unknown})
    assert lesson.labels.tolist() == [-1, -1]
    assert lesson.tasks == ()
