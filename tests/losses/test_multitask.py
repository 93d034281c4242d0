"""Paper A's sum: its parts, its weights, and the batches that have nothing to say."""

from __future__ import annotations

import pytest
import torch

from patchknn.losses.multitask import MultitaskWeights, multitask


@pytest.fixture
def batch(make_batch):
    rows, labels = make_batch((4, 4, 4), dim=16)
    logits, _ = make_batch((4, 4, 4), dim=3, seed=1)
    return rows, logits, labels


def test_the_total_is_the_weighted_sum_of_its_parts(batch):
    weights = MultitaskWeights(triplet=2.0, cauchy=0.5, quantization=0.25, cross_entropy=3.0)
    terms = multitask(*batch, weights=weights)
    parts = {name: value.item() for name, value in terms.parts.items()}
    expected = (
        2 * parts["triplet"]
        + 0.5 * parts["cauchy"]
        + 0.25 * parts["quantization"]
        + 3 * parts["cross_entropy"]
    )
    assert terms.total.item() == pytest.approx(expected, rel=1e-12)
    assert terms.triplets == 3 * 4 * 3
    assert 0 <= terms.saturated <= terms.active <= terms.triplets


def test_gamma_is_half_the_bits_unless_given(batch):
    assert multitask(*batch).total == multitask(*batch, gamma=8.0).total
    assert multitask(*batch).total != multitask(*batch, gamma=2.0).total


@pytest.mark.parametrize(
    ("distance", "quantization"), [("cosine", "sound"), ("euclidean", "literal")]
)
def test_options_reach_the_parts_they_are_for(batch, distance, quantization):
    usual = multitask(*batch).parts
    other = multitask(*batch, distance=distance, quantization=quantization).parts
    changed = {name for name in usual if usual[name] != other[name]}
    assert changed == ({"cauchy"} if distance == "cosine" else {"quantization"})


def test_gradients_equal_finite_differences(batch):
    rows, logits, labels = batch
    rows.requires_grad_()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: multitask(x, y, labels).total, (rows, logits))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [1]])
def test_without_any_triplet_the_metric_parts_are_zero_with_a_graph(labels):
    classes = torch.tensor(labels)
    rows = torch.randn(len(labels), 8, requires_grad=True)
    logits = torch.zeros(len(labels), 4, requires_grad=True)
    terms = multitask(rows, logits, classes, weights=MultitaskWeights(cross_entropy=0.0))
    terms.total.backward()
    assert terms.total == 0
    assert terms.triplets == 0
    assert (rows.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_is_squared(batch, dtype):
    rows, logits, labels = batch
    wide = (rows * 300).to(dtype)  # its squares overflow float16
    terms = multitask(wide, logits.to(dtype), labels)
    expected = multitask(wide.double(), logits.to(dtype).double(), labels)
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == pytest.approx(expected.total.item(), rel=1e-5)


def test_autocast_does_not_reach_inside(batch):
    rows, logits, labels = (
        tensor.float() if tensor.is_floating_point() else tensor for tensor in batch
    )
    outside = multitask(rows, logits, labels, distance="cosine").total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = multitask(rows, logits, labels, distance="cosine").total
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
