import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchknn.figures.correlation import mean_ranks, pearson, spearman

pairs = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=40)


@given(pairs)
@settings(max_examples=60)
def test_both_agree_with_scipy_ties_among_them(values: list[tuple[int, int]]) -> None:
    x, y = np.array(values, float).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert pearson(x, y) is None
        assert spearman(x, y) is None
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    values = np.array([0.5, 0.1, 0.5, 0.9, 0.5])
    np.testing.assert_array_equal(mean_ranks(values), stats.rankdata(values))


def test_one_value_goes_together_with_nothing() -> None:
    assert pearson(np.array([1.0]), np.array([2.0])) is None
