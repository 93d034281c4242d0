import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchknn.evaluation.figures import metrics
from patchknn.evaluation.figures.selective import (
    coverage_rows,
    excess_aurc,
    lower_bound,
    threshold_for,
)

answers = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = zip(*pairs, strict=True)
    return np.array(confidence) / 10, np.array(correct)


@given(answers, st.sampled_from([0.5, 0.75, 0.9, 1.0]))
@settings(max_examples=100)
def test_threshold_is_that_of_a_search_over_all(
    pairs: list[tuple[int, bool]], accuracy: float
) -> None:
    confidence, correct = columns(pairs)
    reached = {
        t: correct[confidence >= t].mean()
        for t in np.unique(confidence)
        if correct[confidence >= t].mean() >= accuracy
    }
    found = threshold_for(confidence, correct, accuracy)
    if not reached:
        assert found is None
        return
    assert found is not None
    best = min(reached)
    assert found.threshold == best
    assert found.accuracy == pytest.approx(reached[best])
    assert found.coverage == pytest.approx((confidence >= best).mean())
    assert found.n == (confidence >= best).sum()
    assert found.lower <= found.accuracy


@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 5), (5, 5), (940, 1000)])
def test_lower_bound_is_that_of_scipys_exact_interval(right: int, n: int) -> None:
    expected = stats.binomtest(right, n, alternative="greater").proportion_ci(0.95, "exact").low
    assert lower_bound(right, n) == pytest.approx(expected, abs=1e-12)


@given(answers)
@settings(max_examples=60)
def test_excess_is_what_lies_above_the_best_order(pairs: list[tuple[int, bool]]) -> None:
    confidence, correct = columns(pairs)
    ideal = np.arange(len(correct), 0, -1.0), np.sort(correct)[::-1]
    excess, own = excess_aurc(confidence, correct), metrics.aurc(confidence, correct)
    best = metrics.aurc(*ideal)
    assert None not in (excess, own, best)
    assert excess == pytest.approx(own - best, abs=1e-12)
    assert excess >= -1e-12
    assert excess_aurc(*ideal) == pytest.approx(0, abs=1e-12)


def test_curve_has_a_point_for_each_confidence() -> None:
    rows = coverage_rows(np.array([0.9, 0.5, 0.9, 0.2]), np.array([True, True, False, False]))
    assert [(row["threshold"], row["coverage"], row["risk"]) for row in rows] == [
        (0.9, 0.5, 0.5),
        (0.5, 0.75, pytest.approx(1 / 3)),
        (0.2, 1.0, 0.5),
    ]


def test_long_curves_keep_both_ends() -> None:
    generator = np.random.default_rng(1)
    confidence, correct = generator.random(5000), generator.random(5000) < 0.7
    rows = coverage_rows(confidence, correct)
    assert len(rows) == 1000
    assert rows[0]["threshold"] == confidence.max()
    assert rows[-1]["risk"] == pytest.approx(1 - correct.mean())


def test_nothing_answered_has_no_figures() -> None:
    empty = np.zeros(0), np.zeros(0, bool)
    assert threshold_for(*empty, 0.9) is None
    assert excess_aurc(*empty) is None
    assert coverage_rows(*empty) == []
