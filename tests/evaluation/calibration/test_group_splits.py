import numpy as np
import pytest

from patchknn.errors import InputError
from patchknn.evaluation.calibration.group_splits import folds_of


@pytest.mark.parametrize("folds", [2, 5])
def test_no_group_is_in_two_folds_and_folds_are_of_like_size(folds: int) -> None:
    groups = np.random.default_rng(0).integers(0, 40, 2000)
    fold = folds_of(groups, folds, np.random.default_rng(1))
    assert all(len(np.unique(fold[groups == group])) == 1 for group in np.unique(groups))
    sizes = np.bincount(fold)
    assert len(sizes) == folds
    assert np.ptp(sizes) <= np.bincount(groups).max()


def test_there_are_no_more_folds_than_groups() -> None:
    assert set(folds_of(np.array([7, 7, 9]), 5, np.random.default_rng(0)).tolist()) == {0, 1}


def test_one_group_cannot_be_parted() -> None:
    with pytest.raises(InputError, match="all queries are of one patient"):
        folds_of(np.array([3, 3]), 2, np.random.default_rng(0))
