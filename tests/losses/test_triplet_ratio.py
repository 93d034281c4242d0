"""L1 against the printed equations, and where the printed exponentials overflow."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import one_to_one_triplets
from patchknn.losses.triplet_ratio import saturated, triplet_ratio, violated


def _loss(rows, labels):
    distances = euclidean_distances(rows)
    return triplet_ratio(distances, one_to_one_triplets(distances, labels))


def _printed(rows, triplets):
    points = rows.double().tolist()
    values = []
    for a, p, n in triplets:
        positive = math.exp(math.dist(points[a], points[p]))
        negative = math.exp(math.dist(points[a], points[n]))
        first, second = positive / (positive + negative), negative / (positive + negative)
        values.append(first**2 + (second - 1) ** 2)  # ||(d+, d− − 1)||², Eq. 1
    return sum(values) / len(values)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (1, 3, 6)])
def test_equals_the_printed_equations(make_batch, literal_triplets, sizes, dtype, rtol):
    rows, labels = make_batch(sizes, dtype=dtype)
    expected = _printed(rows, literal_triplets(rows, labels))
    assert _loss(rows, labels).item() == pytest.approx(expected, rel=rtol)


def test_distances_of_a_thousand_neither_overflow_nor_lose_the_gradient_of_the_graph():
    rows = torch.tensor([[0.0], [1000.0], [1.0]], requires_grad=True)
    loss = _loss(rows, torch.tensor([0, 0, 1]))
    # Anchor 0 is violated by 999, anchor 1 by 1000 − 999 = 1; the single row of class 1 has none.
    assert loss.item() == pytest.approx((2 + 2 / (1 + math.exp(-1)) ** 2) / 2, rel=1e-5)
    loss.backward()
    assert rows.grad.isfinite().all()


def test_identical_rows_give_one_half_and_a_finite_gradient():
    rows = torch.ones(6, 3, requires_grad=True)
    loss = _loss(rows, torch.tensor([0, 0, 0, 1, 1, 1]))
    loss.backward()
    assert loss.item() == 0.5
    assert rows.grad.isfinite().all()


def test_gradients_equal_finite_differences(make_batch):
    rows, labels = make_batch((3, 3, 2), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _loss(x, labels), rows)


def test_violated_and_saturated_triplets_are_counted():
    rows = torch.tensor([[0.0], [20.0], [1.0], [1.5]])
    labels = torch.tensor([0, 0, 1, 1])
    distances = euclidean_distances(rows)
    triplets = one_to_one_triplets(distances, labels)
    # d_ap − d_an: 20 − 1, 20 − 18.5, 0.5 − 1, 0.5 − 1.5
    assert violated(distances, triplets) == 2
    assert saturated(distances, triplets) == 1
