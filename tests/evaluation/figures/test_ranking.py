import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, ndcg_score, precision_recall_fscore_support

from patchknn.evaluation.figures import ranking
from patchknn.evaluation.outcomes import Outcome, Outcomes

answers = st.integers(1, 8).flatmap(
    lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=20)
)
pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=60)
CLASSES = ("e", "b", "d", "a", "c")


@given(answers)
def test_ndcg_agrees_with_scikit_learn(rows: list[list[bool]]) -> None:
    relevant = np.array(rows)
    n, k = relevant.shape
    # Behind the k that were found lie k more rows of the query's class: the best order has k.
    gains = np.concatenate([relevant, np.ones((n, k))], axis=1)
    scores = np.tile(-np.arange(2.0 * k), (n, 1))
    mean = ranking.discounted_gains(relevant).mean()
    assert mean == pytest.approx(ndcg_score(gains, scores, k=k))


@given(answers)
def test_average_precision_is_that_of_a_literal_loop(rows: list[list[bool]]) -> None:
    for row, found in zip(rows, ranking.average_precisions(np.array(rows)), strict=True):
        total = 0.0
        for rank in range(1, len(row) + 1):
            if row[rank - 1]:
                total += sum(row[:rank]) / rank
        assert found == pytest.approx(total / len(row))


def test_a_worked_case_and_what_is_missing() -> None:
    answers = [Outcome("a", "A", "A", 1.0, ("A", "B", "A")), Outcome("b", "A", "A", 1.0, ("A",))]
    relevant = ranking.relevance(Outcomes.of(answers, 3))
    assert relevant.tolist() == [[True, False, True], [True, False, False]]
    expected = [(1 + 2 / 3) / 3, 1 / 3]
    np.testing.assert_allclose(ranking.average_precisions(relevant), expected)
    best = 1 + 1 / np.log2(3) + 1 / 2
    np.testing.assert_allclose(ranking.discounted_gains(relevant), [1.5 / best, 1 / best])


def test_histogram_has_a_place_for_every_count() -> None:
    assert ranking.neighbour_histogram(np.array([3, 0, 3, 1]), 4) == [1, 1, 0, 2, 0]


@given(pairs)
def test_confusion_and_scores_agree_with_scikit_learn(given_pairs: list[tuple[int, int]]) -> None:
    label, prediction = (np.array(column, np.int32) for column in zip(*given_pairs, strict=True))
    table = ranking.confusion(label, prediction, CLASSES)
    true = [CLASSES[number] for number in label]
    called = ["none" if number < 0 else CLASSES[number] for number in prediction]
    assert table.true == tuple(sorted(set(true)))
    assert set(table.predicted[:-1]) == {*true, *called} - {"none"}
    everything = confusion_matrix(true, called, labels=[*table.predicted[:-1], "none"])
    rows = [table.predicted.index(name) for name in table.true]
    np.testing.assert_array_equal(table.counts, everything[rows])
    assert table.counts.sum() == len(label)

    scores = ranking.class_scores(table)
    precision, recall, f1, n = precision_recall_fscore_support(
        true, called, labels=list(table.true), zero_division=0
    )
    assert list(scores) == list(table.true)
    np.testing.assert_allclose([one.recall for one in scores.values()], recall)
    np.testing.assert_allclose([one.precision or 0 for one in scores.values()], precision)
    np.testing.assert_allclose([one.f1 for one in scores.values()], f1)
    assert [one.n for one in scores.values()] == n.tolist()
    for name, one in scores.items():
        assert (one.precision is None) == (name not in called)
