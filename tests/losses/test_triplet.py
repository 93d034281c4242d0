"""The triplet loss with every miner, against plain loops and pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.triplet import triplet

MININGS = ["batch-hard", "semi-hard", "easy-positive", "all"]


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
        if mining == "all":
            found += [(p, n) for p in positive for n in negative]
            continue
        if mining == "easy-positive":
            d = min(positive)
            beyond = [other for other in negative if other > d]
            found += [(d, min(beyond))] if beyond else []
            continue
        for d in positive:
            beyond = [other for other in negative if other > d]
            found.append((d, min(beyond) if beyond else max(negative)))
    return found


def _values(pairs, margin):
    if margin is None:
        return [max(p - n, 0.0) + math.log1p(math.exp(-abs(p - n))) for p, n in pairs]
    return [max(0.0, p - n + margin) for p, n in pairs]


@pytest.mark.parametrize("precision", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(5, 5, 5), (1, 2, 8), (7, 1)])
@pytest.mark.parametrize("margin", [None, 0.2, 1.0])
@pytest.mark.parametrize("mining", MININGS)
def test_equals_plain_loops(make_batch, sizes, margin, mining, precision):
    dtype, rtol = precision
    rows, labels = make_batch(sizes, dtype=dtype)
    values = _values(_pairs(rows, labels, mining), margin)
    terms = triplet(rows, labels, margin=margin, mining=mining)
    assert terms.total.item() == pytest.approx(sum(values) / len(values), rel=rtol)
    assert terms.triplets == len(values)
    assert terms.active == sum(p - n + (margin or 0.0) > 0 for p, n in _pairs(rows, labels, mining))


@pytest.mark.parametrize("mining", MININGS)
def test_only_active_terms_may_be_averaged(make_batch, mining):
    rows, labels = make_batch((5, 5, 5), dim=2)
    rows[labels == 1] += 2.5  # some anchors are satisfied, some are not
    values = _values(_pairs(rows, labels, mining), 0.1)
    active = [value for value in values if value > 0]
    terms = triplet(rows, labels, margin=0.1, only_active=True, mining=mining)
    assert 0 < terms.active == len(active) < len(values)
    assert terms.total.item() == pytest.approx(sum(active) / len(active), rel=1e-10)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_no_triplet_is_a_loss_of_zero_with_a_graph(labels, mining):
    rows = torch.randn(len(labels), 4, requires_grad=True)
    terms = triplet(rows, torch.tensor(labels), margin=0.2, mining=mining)
    terms.total.backward()
    assert terms.total == 0
    assert (rows.grad == 0).all()


@pytest.mark.parametrize("margin", [None, 0.2])
@pytest.mark.parametrize("mining", MININGS)
def test_gradients_equal_finite_differences(make_batch, margin, mining):
    rows, labels = make_batch((3, 4), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: triplet(x, labels, margin=margin, mining=mining).total, rows
    )


@pytest.mark.parametrize("mining", MININGS)
def test_identical_and_far_rows_are_finite(mining):
    rows = torch.cat([torch.zeros(3, 2), torch.full((2, 2), 1e3)]).requires_grad_()
    labels = torch.tensor([0, 0, 1, 0, 1])
    terms = triplet(rows, labels, mining=mining)
    terms.total.backward()
    values = _values(_pairs(rows.detach(), labels, mining), None)
    assert terms.total.item() == pytest.approx(sum(values) / max(len(values), 1), rel=1e-5)
    assert rows.grad.isfinite().all()


def test_an_anchor_with_every_negative_nearer_than_its_positive_is_no_easy_positive():
    rows = torch.tensor([[0.0], [10.0], [1.0], [1.5]])
    terms = triplet(rows, torch.tensor([0, 0, 1, 1]), mining="easy-positive", margin=1.0)
    # Anchors 2 and 3 meet 10 − d and d apart; both of class 0 have no negative beyond.
    assert terms.triplets == 2
    assert terms.total.item() == pytest.approx((max(0, 0.5 - 1 + 1) + 0) / 2)


def _of_pytorch_metric_learning(rows, labels, mining, margin):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    euclidean = distances.LpDistance(normalize_embeddings=False)
    kinds = {"batch-hard": ("hard", "hard"), "easy-positive": ("easy", "semihard")}
    mined = None
    if mining != "all":
        positive, negative = kinds[mining]
        miner = miners.BatchEasyHardMiner(
            pos_strategy=positive, neg_strategy=negative, distance=euclidean
        )
        anchors, positives, _, negatives = miner(rows, labels)
        mined = anchors, positives, negatives
    smooth = margin is None
    loss = losses.TripletMarginLoss(margin or 0.0, smooth_loss=smooth, distance=euclidean)
    return loss(rows, labels, mined)


@pytest.mark.parametrize("margin", [None, 0.2, 1.0])
@pytest.mark.parametrize("sizes", [(10,) * 9, (3, 8, 2), (1, 6, 7)])
@pytest.mark.parametrize("mining", ["batch-hard", "easy-positive", "all"])
def test_equals_pytorch_metric_learning(make_batch, mining, sizes, margin):
    rows, labels = make_batch(sizes, dim=16, dtype=torch.float32)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    expected = _of_pytorch_metric_learning(theirs, labels, mining, margin)
    found = triplet(ours, labels, mining=mining, margin=margin, only_active=True).total
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_batch_hard_of_normalised_features_equals_pytorch_metric_learning(make_batch):
    rows, labels = make_batch((10,) * 9, dim=512, dtype=torch.float32)
    rows = torch.nn.functional.normalize(rows, dim=1)
    expected = _of_pytorch_metric_learning(rows, labels, "batch-hard", 0.2)
    found = triplet(rows, labels, mining="batch-hard", margin=0.2, only_active=True).total
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
