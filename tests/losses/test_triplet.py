"""The triplet loss against literal implementations of both miners, with both kinds of mean."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.triplet import triplet


def _pairs(rows, labels, mining):
    """(d_ap, d_an) of every triplet, by plain loops."""
    points, classes = rows.double().tolist(), labels.tolist()
    found = []
    for a in range(len(points)):
        distances = [math.dist(points[a], point) for point in points]
        positive = [d for i, d in enumerate(distances) if i != a and classes[i] == classes[a]]
        negative = [d for i, d in enumerate(distances) if classes[i] != classes[a]]
        if not positive or not negative:
            continue
        if mining == "batch-hard":
            found.append((max(positive), min(negative)))
            continue
        for d in positive:
            beyond = [other for other in negative if other > d]
            found.append((d, min(beyond) if beyond else max(negative)))
    return found


def _values(pairs, margin):
    if margin is None:
        return [math.log1p(math.exp(p - n)) for p, n in pairs]
    return [max(0.0, p - n + margin) for p, n in pairs]


@pytest.mark.parametrize("precision", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(5, 5, 5), (1, 2, 8), (7, 1)])
@pytest.mark.parametrize("margin", [None, 0.2, 1.0])
@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
def test_equals_plain_loops(make_batch, sizes, margin, mining, precision):
    dtype, rtol = precision
    rows, labels = make_batch(sizes, dtype=dtype)
    values = _values(_pairs(rows, labels, mining), margin)
    terms = triplet(rows, labels, margin=margin, mining=mining)
    assert terms.total.item() == pytest.approx(sum(values) / len(values), rel=rtol)
    assert terms.triplets == len(values)


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
def test_only_active_terms_may_be_averaged(make_batch, mining):
    rows, labels = make_batch((3, 3), dim=2)
    rows[labels == 1] += 3  # some anchors are satisfied, some are not
    values = _values(_pairs(rows, labels, mining), 0.05)
    active = [value for value in values if value > 0]
    terms = triplet(rows, labels, margin=0.05, only_active=True, mining=mining)
    assert terms.active == len(active) < len(values)
    if active:
        assert terms.total.item() == pytest.approx(sum(active) / len(active), rel=1e-10)


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_no_triplet_is_a_loss_of_zero_with_a_graph(labels, mining):
    rows = torch.randn(len(labels), 4, requires_grad=True)
    terms = triplet(rows, torch.tensor(labels), margin=0.2, mining=mining)
    terms.total.backward()
    assert terms.total == 0
    assert (rows.grad == 0).all()


@pytest.mark.parametrize("margin", [None, 0.2])
@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
def test_gradients_equal_finite_differences(make_batch, margin, mining):
    rows, labels = make_batch((3, 4), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: triplet(x, labels, margin=margin, mining=mining).total, rows
    )


@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard"])
def test_identical_and_far_rows_are_finite(mining):
    rows = torch.cat([torch.zeros(3, 2), torch.full((2, 2), 1e3)]).requires_grad_()
    terms = triplet(rows, torch.tensor([0, 0, 1, 0, 1]), mining=mining)
    terms.total.backward()
    assert terms.total.isfinite()
    assert rows.grad.isfinite().all()
