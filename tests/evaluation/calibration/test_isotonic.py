import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from patchknn.evaluation.calibration.isotonic import grouped, isotonic

points = st.lists(
    st.tuples(st.integers(0, 12), st.booleans(), st.integers(1, 5)), min_size=1, max_size=50
)


@given(points)
@settings(max_examples=150)
def test_curve_is_that_of_scikit_learn(given_points: list[tuple[int, bool, int]]) -> None:
    x, y, weights = (np.array(column) for column in zip(*given_points, strict=True))
    x = x / 12
    curve = isotonic(x, y, weights)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(x, y, weights)
    asked = np.linspace(-0.2, 1.2, 57)
    np.testing.assert_allclose(curve.at(asked), oracle.predict(asked), atol=1e-12)
    assert (np.diff(curve.x) > 0).all()
    assert (np.diff(curve.y) >= 0).all()
    repeated = isotonic(np.repeat(x, weights), np.repeat(y, weights))
    np.testing.assert_allclose(repeated.at(asked), curve.at(asked), atol=1e-12)


def test_groups_keep_equals_together_and_lose_nothing() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 30, 500) / 30, generator.random(500) < 0.4
    means, shares, sizes = grouped(x, y, 10)
    assert len(means) <= 10
    assert sizes.sum() == 500
    assert (np.diff(means) > 0).all()
    assert (shares * sizes).sum() == pytest.approx(y.sum())
    assert sizes.max() < 500 / 10 + 40  # one group and what is equal to its last


def test_few_values_are_groups_of_their_own() -> None:
    x = np.array([0.5, 0.1, 0.5, 0.9])
    means, shares, sizes = grouped(x, np.array([True, False, False, True]), 50)
    np.testing.assert_allclose(means, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(shares, [0, 0.5, 1])
    np.testing.assert_array_equal(sizes, [1, 2, 1])
