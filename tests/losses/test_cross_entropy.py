"""Cross-entropy with and without class weights."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.cross_entropy import cross_entropy


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.5]])
def test_equals_plain_loops(make_batch, weights):
    logits, labels = make_batch((4, 3, 2), dim=3)
    total, scale = 0.0, 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        weight = 1.0 if weights is None else weights[label]
        total -= weight * math.log(math.exp(row[label]) / sum(map(math.exp, row)))
        scale += weight
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert cross_entropy(logits, labels, given).item() == pytest.approx(total / scale, rel=1e-10)


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.5]])
def test_smoothed_labels_equal_plain_loops(make_batch, weights):
    logits, labels = make_batch((4, 3, 2), dim=3)
    epsilon, total, scale = 0.2, 0.0, 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        normaliser = math.log(sum(map(math.exp, row)))
        for number, score in enumerate(row):
            target = epsilon / 3 + (1 - epsilon) * (number == label)
            weight = 1.0 if weights is None else weights[number]
            total += target * weight * (normaliser - score)
        scale += 1.0 if weights is None else weights[label]
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = cross_entropy(logits, labels, given, epsilon)
    assert loss.item() == pytest.approx(total / scale, rel=1e-10)


def test_half_precision_scores_are_widened():
    logits = torch.tensor([[60000.0, 0.0]], dtype=torch.float16)
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(59990, rel=1e-3)


def test_gradients_equal_finite_differences(make_batch):
    logits, labels = make_batch((2, 3, 2), dim=3)
    logits.requires_grad_()
    weights = torch.tensor([1.0, 4.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels, weights), logits)


@pytest.mark.parametrize("weights", [None, torch.ones(3)])
def test_without_a_row_it_is_0_and_has_a_graph(weights):
    logits = torch.zeros(0, 3, requires_grad=True)
    total = cross_entropy(logits, torch.zeros(0, dtype=torch.int64), weights)
    total.backward()
    assert total.item() == 0
    assert logits.grad is not None
