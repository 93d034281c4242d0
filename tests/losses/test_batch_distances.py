"""The fast distances of float32 batches, with their gradients, against float64."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.batch_distances import batch_distances, has_fast_path
from patchknn.losses.distances import euclidean_distances


def _weights(count):
    return torch.rand(count, count, generator=torch.Generator().manual_seed(3))


def _gradient(rows, weights):
    rows = rows.clone().requires_grad_()
    (euclidean_distances(rows) * weights.to(rows.dtype)).sum().backward()
    return rows.grad


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dim", [1, 3, 48, 130])
def test_equals_plain_loops(make_batch, scale, dim):
    rows, _ = make_batch((9, 14), dim=dim, scale=scale, dtype=torch.float32)
    assert has_fast_path(rows)
    points = rows.double().tolist()
    expected = torch.tensor([[math.dist(a, b) for b in points] for a in points])
    found = batch_distances(rows)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_gradients_equal_those_of_direct_differences(make_batch, offset, spread):
    # A matrix product in float32 would lose the gradient of near rows that are far from 0.
    rows, _ = make_batch((12, 12), dim=33, scale=spread, dtype=torch.float32)
    rows = rows + offset
    expected = _gradient(rows.double(), _weights(24))  # by cdist, which takes differences
    largest = expected.abs().max().item()
    torch.testing.assert_close(
        _gradient(rows, _weights(24)), expected.float(), rtol=1e-5, atol=1e-6 * largest
    )


def test_identical_rows_are_zero_apart_and_have_no_gradient_from_each_other():
    rows = torch.full((5, 7), 1e3)
    assert (batch_distances(rows) == 0).all()
    assert (_gradient(rows, _weights(5)) == 0).all()
    rows[4] = 0
    gradient = _gradient(rows, torch.ones(5, 5))
    assert torch.equal(gradient[0], gradient[3])
    torch.testing.assert_close(gradient[0], torch.full((7,), 2 / math.sqrt(7)))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_rows(count):
    rows = torch.ones(count, 3, requires_grad=True)
    distances = euclidean_distances(rows)
    assert distances.shape == (count, count)
    distances.sum().backward()
    assert (rows.grad == 0).all()


def test_rows_need_not_be_contiguous(make_batch):
    rows, _ = make_batch((6, 5), dim=8, dtype=torch.float32)
    columns = rows.T.contiguous().T
    assert torch.equal(batch_distances(columns), batch_distances(rows))


def test_other_precisions_take_the_slow_path(make_batch):
    rows, _ = make_batch((6, 5))
    assert not has_fast_path(rows)
