"""The mean squared error, against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import mean_squared_error

from patchknn.losses.squared_error import squared_error


def test_it_is_that_of_scikit_learn():
    values, targets = torch.randn(30, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    expected = mean_squared_error(targets.numpy(), values.numpy())
    assert squared_error(values, targets).item() == pytest.approx(expected)


def test_half_precision_does_not_overflow():
    values = torch.full((4,), 300.0, dtype=torch.float16)
    assert squared_error(values, torch.zeros(4)).item() == pytest.approx(9e4)


def test_without_a_row_it_is_zero_with_a_graph():
    values = torch.zeros(0, requires_grad=True)
    loss = squared_error(values, torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
