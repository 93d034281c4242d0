"""Losses, scores and figures of the tasks, against scikit-learn and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, mean_squared_error, roc_auc_score

from patchknn.errors import InputError, UsageError
from patchknn.tables import read_table
from patchknn.wholeslide.tasks.classification import Classification
from patchknn.wholeslide.tasks.reading import Question, task_from_json, task_of
from patchknn.wholeslide.tasks.regression import Regression
from patchknn.wholeslide.tasks.survival import Survival

_RNG = np.random.default_rng(5)


def test_classification_figures_are_those_of_scikit_learn():
    task = Classification("label", ("a", "b", "c"))
    outputs, true = _RNG.normal(size=(60, 3)), _RNG.integers(0, 3, 60)
    scores = task.scores(outputs)
    np.testing.assert_allclose(scores, softmax(outputs, axis=1))
    found = task.figures(scores, true[:, None].astype(float), np.zeros(60, int))
    assert found["auc"] == pytest.approx(roc_auc_score(true, scores, multi_class="ovr"))
    assert found["mean_class_recall"] == pytest.approx(
        balanced_accuracy_score(true, scores.argmax(axis=1))
    )
    assert found["accuracy"] == pytest.approx((scores.argmax(axis=1) == true).mean())


def test_balanced_classes_weigh_the_same():
    task = Classification("label", ("a", "b"), balanced=True)
    targets = np.array([[0.0]] * 9 + [[1.0]])
    outputs = torch.randn(10, 2)
    loss = task.fitted(targets).loss(outputs, torch.from_numpy(targets))
    each = -outputs.log_softmax(dim=1)
    expected = (each[:9, 0].mean() + each[9, 1]) / 2
    torch.testing.assert_close(loss, expected)


def test_regression_does_not_hang_on_the_unit():
    targets = _RNG.normal(1e4, 500, (40, 1))
    task = Regression("size").fitted(targets)
    outputs = (targets - targets.mean()) / targets.std()
    np.testing.assert_allclose(task.scores(outputs), targets)
    assert task.loss(torch.from_numpy(outputs), torch.from_numpy(targets)).item() < 1e-12
    scores = targets + _RNG.normal(0, 300, targets.shape)
    found = task.figures(scores, targets, np.zeros(40, int))
    assert found["spearman"] == pytest.approx(spearmanr(scores, targets).statistic)
    assert found["mse"] == pytest.approx(mean_squared_error(targets, scores))


def test_survival_compares_within_folds_alone():
    task = Survival("time", "event")
    targets = np.array([[1.0, 1], [2, 1], [1, 1], [2, 1]])
    scores = np.array([[5.0], [4], [1], [0]])
    assert task.figures(scores, targets, np.array([0, 0, 1, 1])) == {"concordance": 1.0}
    assert task.figures(scores, targets, np.zeros(4, int))["concordance"] < 1


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "slides.csv"
    file.write_text("slide,label,size,months,dead\na,x,1.5,3,1\nb,y,2,4,no\nc,,,,\nd,x,7,1,TRUE\n")
    return read_table(file)


def test_targets_are_read(table):
    task, targets = task_of(table, [0, 1, 2, 3], Question())
    assert task == Classification("label", ("x", "y"))
    np.testing.assert_array_equal(targets[:, 0], [0, 1, np.nan, 0])
    task, targets = task_of(table, [3, 0], Question(target="size"))
    assert (task.kind, targets.tolist()) == ("regression", [[7.0], [1.5]])
    _, targets = task_of(table, [0, 1, 2, 3], Question(time="months", event="dead"))
    np.testing.assert_array_equal(targets, [[3, 1], [4, 0], [np.nan, np.nan], [1, 1]])


@pytest.mark.parametrize(
    ("question", "rows", "sentence"),
    [
        (Question(), [0, 3], "they are all 'x'"),
        (Question(label="dead"), [2], "none has one"),
        (Question(target="size"), [0, 0], "does not vary"),
        (Question(target="label"), [0], "line 2: label is 'x', not a number"),
        (Question(time="months", event="label"), [0], "give 1 where the event was seen"),
        (Question(time="months", event="dead"), [1], "no slide with tissue has the event"),
    ],
)
def test_what_cannot_be_learnt_is_said(table, question, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        task_of(table, rows, question)


def test_two_questions_are_one_too_many():
    with pytest.raises(UsageError, match="Give one of"):
        _ = Question(label="a", target="b").columns
    with pytest.raises(UsageError, match="both --time and --event"):
        _ = Question(time="a").columns


@pytest.mark.parametrize(
    "task",
    [Classification("label", ("a", "b")), Regression("x", 3.5, 2.0), Survival("time", "event")],
)
def test_json_makes_the_same_task_again(task):
    assert task_from_json(task.as_json()) == task


def test_unknown_tasks_are_said():
    with pytest.raises(InputError, match="'segmentation'"):
        task_from_json({"kind": "segmentation"})
    with pytest.raises(InputError, match="not complete"):
        task_from_json({"kind": "classification"})


@pytest.mark.parametrize("task", [Regression("x"), Survival("time", "event")])
def test_strata_are_of_even_size(task):
    targets = np.stack([_RNG.exponential(size=90), _RNG.integers(0, 2, 90)], axis=1)
    names, counts = np.unique(task.strata(targets), return_counts=True)
    assert len(names) >= 5
    assert counts.min() >= 5
