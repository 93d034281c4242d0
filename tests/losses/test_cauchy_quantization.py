"""L3: the sound form does not care for the sign of a bit, the printed one does."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.cauchy_quantization import cauchy_quantization
from patchknn.losses.distances import euclidean_distances
from patchknn.losses.mining import one_to_one_triplets


def _loss(rows, labels, quantization="sound", gamma=4.0):
    triplets = one_to_one_triplets(euclidean_distances(rows), labels)
    return cauchy_quantization(rows, triplets, gamma, quantization)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("quantization", ["sound", "literal"])
def test_equals_plain_loops(make_batch, literal_triplets, quantization, dtype, rtol):
    rows, labels = make_batch((4, 1, 5), dtype=dtype)
    points, gamma = rows.double().tolist(), 4.0

    def term(row):
        side = [abs(v) if quantization == "sound" else v for v in row]
        return math.log(1 + math.dist(side, [1.0] * len(side)) / gamma)

    triplets = literal_triplets(rows, labels)
    expected = sum(term(points[i]) for triplet in triplets for i in triplet) / len(triplets)
    assert _loss(rows, labels, quantization).item() == pytest.approx(expected, rel=rtol)


def test_only_the_sound_form_is_even(make_batch):
    rows, labels = make_batch((4, 4))
    assert _loss(rows, labels).item() == pytest.approx(_loss(-rows, labels).item(), rel=1e-12)
    literal = _loss(rows, labels, "literal").item()
    assert literal != pytest.approx(_loss(-rows, labels, "literal").item(), rel=1e-3)


def test_sign_codes_cost_nothing_and_have_a_finite_gradient():
    rows = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0]], requires_grad=True)
    loss = _loss(rows, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == 0
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("quantization", ["sound", "literal"])
def test_gradients_equal_finite_differences(make_batch, quantization):
    rows, labels = make_batch((3, 3), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _loss(x, labels, quantization), rows)
