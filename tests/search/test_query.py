"""Features that a query may have."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.search.query import all_finite


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_seen(dtype):
    largest = np.array([[np.finfo(dtype).max, -np.finfo(dtype).max, 0, -0.0]], dtype)
    assert all_finite(largest)
    assert all_finite(largest[:0])
    for value in (np.nan, np.inf, -np.inf, -np.nan):
        values = largest.copy()
        values[0, 2] = value
        assert not all_finite(values)
        assert not all_finite(np.tile(values, (9, 1))[::2, ::-1])
