"""The first columns of each row, against Python's stable sort."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.losses.ranking import first_columns


def _literal(keys, count):
    return [sorted(range(len(row)), key=row.__getitem__)[:count] for row in keys.tolist()]


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 4),
    values=st.lists(
        st.sampled_from([-math.inf, -2.5, -1e-40, -0.0, 0.0, 1e-40, 1.0, 3.0, math.inf]),
        min_size=1,
        max_size=24,
    ),
    count=st.integers(1, 30),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_a_stable_sort_also_among_ties(rows, values, count, dtype):
    keys = torch.tensor([values[i:] + values[:i] for i in range(rows)], dtype=dtype)
    assert first_columns(keys, count).tolist() == _literal(keys, count)


@pytest.mark.parametrize("count", [1, 5, 100, 300])
def test_equals_a_stable_sort_of_many_columns(count):
    keys = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert first_columns(keys, count).tolist() == _literal(keys, count)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rows_have_no_columns(count, dtype):
    assert first_columns(torch.zeros(0, 5, dtype=dtype), count).shape == (0, count)
    assert first_columns(torch.zeros(0, 0, dtype=dtype), count).shape == (0, 0)
