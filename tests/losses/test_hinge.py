"""The hinge and its slope."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.hinge import hinge, hinge_slope


@pytest.mark.parametrize("gap", [-800.0, -30.0, -1.0, 0.0, 1.0, 20.5, 39.9, 40.1])
def test_the_soft_hinge_is_exact_on_both_sides(gap):
    # torch's softplus is linear from 20, where that is off by 2e-9.
    found = hinge(torch.tensor([gap], dtype=torch.float64), None).item()
    assert found == pytest.approx(max(gap, 0.0) + math.log1p(math.exp(-abs(gap))), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_soft_hinge_of_a_thousand_is_a_thousand(dtype):
    assert hinge(torch.tensor([1e3], dtype=dtype), None).item() == 1e3


@pytest.mark.parametrize("margin", [None, 0.5])
def test_the_slope_is_the_derivative(margin):
    gap = torch.linspace(-50, 50, 1001, dtype=torch.float64).requires_grad_()
    hinge(gap, margin).sum().backward()
    torch.testing.assert_close(hinge_slope(gap.detach(), margin), gap.grad, rtol=1e-12, atol=0)
