"""The deep kNN loss against the triple sum of paper B."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.deep_knn import deep_knn


def _literal(rows, labels, alpha, k, m):
    points, classes = rows.double().tolist(), labels.tolist()
    total, count, active = 0.0, 0, 0
    for i in range(len(points)):
        by_distance = sorted(
            (j for j in range(len(points)) if j != i), key=lambda j: math.dist(points[i], points[j])
        )
        near = [j for j in by_distance if classes[j] == classes[i]][:k]
        far = [j for j in by_distance if classes[j] != classes[i]][:m]
        for y in near:
            for z in far:
                value = math.dist(points[i], points[y]) + alpha - math.dist(points[i], points[z])
                total += max(0.0, value)
                active += value > 0
                count += 1
    return total / count, count, active


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(10, 10, 10), (2, 3, 9), (1, 6)])
@pytest.mark.parametrize("alpha", [0.1, 2.0])
def test_equals_the_triple_sum(make_batch, sizes, alpha, dtype, rtol):
    rows, labels = make_batch(sizes, dtype=dtype)
    terms = deep_knn(rows, labels, alpha=alpha, positives=5, negatives=5)
    expected, count, active = _literal(rows, labels, alpha, 5, 5)
    assert terms.total.item() == pytest.approx(expected, rel=rtol)
    assert terms.triplets == count
    assert terms.active == active


@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 9), (7, 2), (50, 50)])
def test_any_number_of_neighbours(make_batch, k, m):
    rows, labels = make_batch((6, 7, 8))
    terms = deep_knn(rows, labels, alpha=1.0, positives=k, negatives=m)
    assert terms.total.item() == pytest.approx(_literal(rows, labels, 1.0, k, m)[0], rel=1e-10)


def test_gradients_equal_finite_differences(make_batch):
    rows, labels = make_batch((4, 3, 4), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: deep_knn(x, labels).total, rows)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_no_triplet_is_a_loss_of_zero_with_a_graph(labels):
    rows = torch.randn(len(labels), 4, requires_grad=True)
    terms = deep_knn(rows, torch.tensor(labels))
    terms.total.backward()
    assert terms.total == 0
    assert (rows.grad == 0).all()


def test_duplicates_and_far_rows_are_finite():
    rows = torch.tensor([[0.0], [0.0], [1e3], [0.0], [1e3]], requires_grad=True)
    terms = deep_knn(rows, torch.tensor([0, 0, 0, 1, 1]), alpha=2.0)
    terms.total.backward()
    assert terms.total.isfinite()
    assert rows.grad.isfinite().all()


def test_half_precision_is_widened(make_batch):
    rows, labels = make_batch((4, 4), dtype=torch.float16, scale=300)
    expected, _, _ = _literal(rows, labels, 2.0, 5, 5)
    assert deep_knn(rows, labels).total.item() == pytest.approx(expected, rel=1e-5)
