import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score

from patchknn.evaluation.figures import metrics

labels = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=60)
answers = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = zip(*pairs, strict=True)
    return np.array(confidence) / 10, np.array(correct)


@given(labels)
@settings(max_examples=60, deadline=None)
def test_recalls_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    recalls = metrics.class_recalls(true, predicted)
    present = np.unique(true)
    expected = recall_score(true, predicted, labels=present, average=None, zero_division=0)
    np.testing.assert_allclose([entry.recall for entry in recalls], expected)
    mean = metrics.mean_class_recall(true, predicted)
    if set(predicted.tolist()) <= set(present.tolist()):  # else scikit-learn warns
        assert mean == pytest.approx(balanced_accuracy_score(true, predicted))
    assert metrics.accuracy(true, predicted) == pytest.approx((true == predicted).mean())


def test_smallest_class_is_the_one_with_the_fewest_queries() -> None:
    true = np.array([0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 0, 0, -1])
    smallest = metrics.smallest_class_recall(true, predicted)
    assert smallest == metrics.ClassRecall(label=2, n=2, recall=0.0)


def test_missing_neighbours_count_as_wrong() -> None:
    hits = np.array([10, 5, 0])  # the second had only five neighbours, all true
    assert metrics.precision_at_k(hits, 10) == pytest.approx(0.5)
    assert metrics.all_k_true(hits, 10) == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_aurc_is_the_mean_over_all_orders_of_equals(pairs: list[tuple[int, bool]]) -> None:
    confidence, correct = columns(pairs)
    areas = []
    for order in itertools.permutations(range(len(pairs))):
        ordered = confidence[list(order)]
        if (np.diff(ordered) > 0).any():
            continue  # not an order by confidence
        wrong = np.cumsum(~correct[list(order)])
        areas.append((wrong / np.arange(1, len(pairs) + 1)).mean())
    assert metrics.aurc(confidence, correct) == pytest.approx(np.mean(areas))


def test_aurc_of_a_worked_case() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, False, True])
    assert metrics.aurc(confidence, correct) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)


@given(answers)
@settings(max_examples=60, deadline=None)
def test_ece_agrees_with_a_literal_loop(pairs: list[tuple[int, bool]]) -> None:
    confidence, correct = columns(pairs)
    expected = 0.0
    for tenth in range(1, 11):
        # Votes are tenths here: bin (0.2, 0.3] holds exactly those with three votes of ten.
        mine = [p for p in pairs if p[0] == tenth or (tenth == 1 and p[0] == 0)]
        if mine:
            accuracy = sum(right for _, right in mine) / len(mine)
            mean = sum(votes for votes, _ in mine) / len(mine) / 10
            expected += len(mine) / len(pairs) * abs(accuracy - mean)
    found = metrics.expected_calibration_error(confidence, correct)
    assert found == pytest.approx(expected)
    assert sum(entry.n for entry in metrics.confidence_bins(confidence, correct)) == len(pairs)


def test_without_queries_there_is_no_figure() -> None:
    nothing = np.zeros(0)
    assert metrics.accuracy(nothing, nothing) is None
    assert metrics.mean_class_recall(nothing, nothing) is None
    assert metrics.smallest_class_recall(nothing, nothing) is None
    assert metrics.aurc(nothing, nothing > 0) is None
    assert metrics.expected_calibration_error(nothing, nothing > 0) is None
