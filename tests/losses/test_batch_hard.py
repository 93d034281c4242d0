"""Batch-hard against a literal implementation, with the mean both schools use."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.batch_hard import batch_hard


def _literal(rows, labels, margin):
    points, classes = rows.double().tolist(), labels.tolist()
    values = []
    for a in range(len(points)):
        positive = [
            math.dist(points[a], points[i])
            for i in range(len(points))
            if i != a and classes[i] == classes[a]
        ]
        negative = [
            math.dist(points[a], points[i]) for i in range(len(points)) if classes[i] != classes[a]
        ]
        if positive and negative:
            gap = max(positive) - min(negative)
            values.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return values


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(5, 5, 5), (1, 2, 8)])
@pytest.mark.parametrize("margin", [None, 0.2, 1.0])
def test_equals_plain_loops(make_batch, sizes, margin, dtype, rtol):
    rows, labels = make_batch(sizes, dtype=dtype)
    values = _literal(rows, labels, margin)
    terms = batch_hard(rows, labels, margin=margin)
    assert terms.total.item() == pytest.approx(sum(values) / len(values), rel=rtol)
    assert terms.triplets == len(values)


def test_only_active_terms_may_be_averaged(make_batch):
    rows, labels = make_batch((3, 3), dim=2)
    rows[labels == 1] += 3  # some anchors are satisfied, some are not
    values = _literal(rows, labels, 0.05)
    active = [value for value in values if value > 0]
    assert 0 < len(active) < len(values)
    terms = batch_hard(rows, labels, margin=0.05, only_active=True)
    assert terms.total.item() == pytest.approx(sum(active) / len(active), rel=1e-10)
    assert terms.active == len(active)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_no_triplet_is_a_loss_of_zero_with_a_graph(labels):
    rows = torch.randn(3, 4, requires_grad=True)
    terms = batch_hard(rows, torch.tensor(labels), margin=0.2)
    terms.total.backward()
    assert terms.total == 0


@pytest.mark.parametrize("margin", [None, 0.2])
def test_gradients_equal_finite_differences(make_batch, margin):
    rows, labels = make_batch((3, 4), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: batch_hard(x, labels, margin=margin).total, rows)


def test_identical_and_far_rows_are_finite():
    rows = torch.cat([torch.zeros(3, 2), torch.full((2, 2), 1e3)]).requires_grad_()
    terms = batch_hard(rows, torch.tensor([0, 0, 1, 0, 1]))
    terms.total.backward()
    assert terms.total.isfinite()
    assert rows.grad.isfinite().all()
