"""Distances: exact where the usual shortcut is not, and with finite gradients."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.distances import (
    cosine_distances,
    distances_by_name,
    euclidean_distances,
    euclidean_norm,
    safe_sqrt,
)


def test_identical_rows_are_exactly_zero_apart_where_the_matrix_product_is_not():
    row = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 100
    rows = row.repeat(40, 1)
    shortcut = torch.cdist(rows, rows, compute_mode="use_mm_for_euclid_dist")
    assert shortcut.max() > 0  # the trap
    assert (euclidean_distances(rows) == 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_euclidean_distances_equal_plain_loops(make_batch, scale):
    rows, _ = make_batch((5, 4), scale=scale)
    expected = [[math.dist(a, b) for b in rows.tolist()] for a in rows.tolist()]
    close = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(euclidean_distances(rows), close, rtol=1e-12, atol=0)


def test_a_distance_of_zero_has_gradient_zero_not_nan():
    rows = torch.ones(3, 4, requires_grad=True)
    euclidean_distances(rows).sum().backward()
    assert (rows.grad == 0).all()
    value = torch.zeros(2, requires_grad=True)
    safe_sqrt(value).sum().backward()
    assert (value.grad == 0).all()
    zero = torch.zeros(2, 3, requires_grad=True)
    euclidean_norm(zero).sum().backward()
    assert (zero.grad == 0).all()


def test_cosine_distance_of_sign_codes_is_their_hamming_distance():
    signs = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 1, 4], [1, 0, 3], [4, 3, 0]], dtype=torch.float64)
    torch.testing.assert_close(distances_by_name(signs, "cosine"), expected)


def test_collapsed_rows_still_get_a_cosine_gradient():
    generator = torch.Generator().manual_seed(0)
    rows = torch.ones(2, 8, dtype=torch.float64)
    rows += 1e-3 * torch.randn(2, 8, generator=generator, dtype=torch.float64)
    rows.requires_grad_()
    cosine_distances(rows)[0, 1].backward()  # a clamp of cos at 0.99 would give 0
    assert rows.grad.abs().max() > 0


def test_a_zero_row_is_orthogonal_to_all_and_has_no_gradient():
    rows = torch.zeros(2, 4)
    rows[1] = 1
    rows.requires_grad_()
    distances = cosine_distances(rows)
    assert distances[0, 1] == 2
    distances.sum().backward()
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosine_distance_of_nearly_parallel_rows_is_not_lost_in_rounding(angle, dtype):
    # 1 − cos itself rounds to 0 in float32 from an angle of about 2e-4 downwards.
    rows = torch.tensor([[1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]], dtype=dtype)
    x, y = rows.double().tolist()
    sine = math.dist([0, 0], [x[0] * y[1] - x[1] * y[0], 0]) / math.hypot(*y)
    expected = 3 / 2 * 2 * math.sin(math.asin(sine) / 2) ** 2
    rows = (rows * torch.tensor([[7.0], [300.0]], dtype=dtype)).requires_grad_()
    distances = cosine_distances(rows)
    rtol = 1e-5 if dtype == torch.float32 else 1e-10
    assert distances[0, 1].item() == pytest.approx(expected, rel=rtol)
    distances[0, 1].backward()
    assert (rows.grad[:, 1].abs() > 0).all() == (angle > 0)


def test_two_zero_rows_are_orthogonal_to_each_other_but_not_to_themselves():
    expected = torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    rows = torch.tensor([[0.0, 0], [0, 0], [3, 4]])
    assert torch.equal(cosine_distances(rows), expected)


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_gradients_equal_finite_differences(make_batch, name):
    rows, _ = make_batch((3, 2), dim=4)
    rows.requires_grad_()
    weights = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights.fill_diagonal_(0)  # the distance to itself has no derivative
    assert torch.autograd.gradcheck(lambda x: (distances_by_name(x, name) * weights).sum(), rows)
