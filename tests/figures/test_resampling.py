import numpy as np
import pytest

from patchknn.figures import resampling
from patchknn.figures.resampling import GroupedSums, dense_numbers, draws, middle


@pytest.mark.parametrize("most_dense", [0, 1 << 17])
def test_sums_are_those_of_the_queries_drawn(
    monkeypatch: pytest.MonkeyPatch, most_dense: int
) -> None:
    """Both ways to add up, against taking every query of a drawn patient again."""
    monkeypatch.setattr(resampling, "_MOST_DENSE", most_dense)
    rng = np.random.default_rng(3)
    groups = dense_numbers(rng.choice([4, 9, 1, 7], 60))
    keys = rng.choice([0, 2, 3], 60)  # nothing has key 1
    columns = rng.integers(0, 5, (60, 2)).astype(np.float64)
    sums = GroupedSums(groups, keys, columns)
    weights = rng.integers(0, 3, (5, 4)).astype(np.float64)
    expected = np.zeros((5, 4, 2))
    for draw in range(5):
        for query in range(60):
            expected[draw, keys[query]] += weights[draw, groups[query]] * columns[query]
    np.testing.assert_array_equal(sums.drawn(weights), expected)


def test_draws_are_of_as_many_and_hang_on_the_seed_alone() -> None:
    few, many = list(draws(7, 50, 3, 7)), list(draws(7, 50, 3, (1 << 21) // 4))
    assert len(few) == 1
    assert len(many) == 13
    np.testing.assert_array_equal(few[0], np.concatenate(many))
    assert few[0].shape == (50, 7)
    assert (few[0].sum(axis=1) == 7).all()
    assert not np.array_equal(few[0], next(draws(7, 50, 4, 7)))


def test_the_middle_leaves_out_what_does_not_exist() -> None:
    values = np.array([*range(41), np.nan])
    assert middle(values) == pytest.approx((1.0, 39.0))
    assert middle(np.array([np.nan])) is None
