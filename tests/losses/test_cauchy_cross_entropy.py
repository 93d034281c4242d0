"""L2 against its printed sum, and at d_ap = 0 where that is NaN."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.cauchy_cross_entropy import cauchy_cross_entropy
from patchknn.losses.distances import distances_by_name, euclidean_distances
from patchknn.losses.mining import one_to_one_triplets


def _loss(rows, labels, gamma=4.0):
    distances = euclidean_distances(rows)
    return cauchy_cross_entropy(distances, one_to_one_triplets(distances, labels), gamma)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e3])
def test_equals_the_printed_sum(make_batch, literal_triplets, dtype, rtol, scale):
    rows, labels = make_batch((4, 3, 5), dtype=dtype, scale=scale)
    gamma, points = 4.0, rows.double().tolist()
    values = []
    for a, p, n in literal_triplets(rows, labels):
        positive, negative = math.dist(points[a], points[p]), math.dist(points[a], points[n])
        values.append(
            math.log(positive / gamma)
            + math.log(1 + gamma / positive)
            + math.log(1 + gamma / negative)
        )
    expected = sum(values) / len(values)
    assert _loss(rows, labels).item() == pytest.approx(expected, rel=rtol)


def test_duplicates_give_a_finite_loss_and_gradient():
    rows = torch.ones(4, 3, requires_grad=True)
    loss = _loss(rows, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(4.0 / 1e-6), rel=1e-6)
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_gradients_equal_finite_differences(make_batch, distance):
    rows, labels = make_batch((3, 3), dim=4)
    rows.requires_grad_()

    def loss(x):
        triplets = one_to_one_triplets(euclidean_distances(x), labels)
        return cauchy_cross_entropy(distances_by_name(x, distance), triplets, 2.0)

    assert torch.autograd.gradcheck(loss, rows)
