"""Distances to chosen constant rows."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.pair_distances import pair_distances


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_equals_plain_loops(make_batch, scale, dtype, rtol):
    rows, _ = make_batch((5,), scale=scale, dtype=dtype)
    others, _ = make_batch((7,), scale=scale, dtype=dtype, seed=1)
    index = torch.tensor([[0, 6], [1, 1], [2, 3], [5, 4], [0, 0]])
    found = pair_distances(rows, others, index)
    for i, chosen in enumerate(index.tolist()):
        for r, j in enumerate(chosen):
            expected = math.dist(rows[i].double().tolist(), others[j].double().tolist())
            assert found[i, r].item() == pytest.approx(expected, rel=rtol)


def test_the_others_get_no_gradient_and_identical_rows_give_none():
    rows = torch.ones(2, 3, requires_grad=True)
    others = torch.ones(4, 3, requires_grad=True)
    pair_distances(rows, others, torch.tensor([[0], [3]])).sum().backward()
    assert (rows.grad == 0).all()
    assert others.grad is None


def test_gradients_equal_finite_differences(make_batch):
    rows, _ = make_batch((4,), dim=3)
    others, _ = make_batch((6,), dim=3, seed=1)
    rows.requires_grad_()
    index = torch.tensor([[0, 5], [1, 2], [3, 3], [4, 0]])
    assert torch.autograd.gradcheck(lambda x: pair_distances(x, others, index), rows)
