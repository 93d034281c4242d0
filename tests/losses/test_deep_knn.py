"""The deep kNN loss against the triple sum of paper B, in the batch and in a bank."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.bank import FeatureBank
from patchknn.losses.deep_knn import deep_knn


def _literal(rows, labels, alpha, k, m, *, bank=None, numbers=None):
    """The mean, the number of its terms and that of those above 0; the batch is its own bank."""
    bank = bank or FeatureBank(rows.detach(), labels, torch.arange(len(labels)))
    numbers = range(len(labels)) if numbers is None else numbers.tolist()
    points, classes = bank.features.double().tolist(), bank.labels.tolist()
    known = bank.numbers.tolist()
    total, count, active = 0.0, 0, 0
    for x, label, number in zip(rows.double().tolist(), labels.tolist(), numbers, strict=True):
        by_distance = sorted(
            (j for j in range(len(points)) if known[j] != number),
            key=lambda j: math.dist(x, points[j]),
        )
        near = [j for j in by_distance if classes[j] == label][:k]
        far = [j for j in by_distance if classes[j] != label][:m]
        for y in near:
            for z in far:
                value = math.dist(x, points[y]) + alpha - math.dist(x, points[z])
                total += max(0.0, value)
                active += value > 0
                count += 1
    return total / max(count, 1), count, active


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


@pytest.fixture
def make_banked(make_batch):
    """A batch, the numbers of its rows, and a bank in which they are as they were before."""

    def make(sizes, batch=12, **options):
        rows, labels = make_batch(sizes, **options)
        bank = FeatureBank(rows, labels, torch.arange(len(labels)) * 3)
        chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))[:batch]
        drift, _ = make_batch((len(chosen),), **{"scale": 1.0, **options, "seed": 5})
        return rows[chosen] + 0.1 * drift, labels[chosen], bank.numbers[chosen], bank

    return make


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(30, 30, 40), (2, 3, 60), (1, 50)])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_with_a_bank_equals_the_triple_sum(make_banked, sizes, scale, dtype, rtol):
    rows, labels, numbers, bank = make_banked(sizes, scale=scale, dtype=dtype)
    for k, m in ((5, 5), (1, 9), (70, 70)):
        terms = deep_knn(
            rows, labels, alpha=2.0, positives=k, negatives=m, bank=bank, numbers=numbers
        )
        expected, count, active = _literal(rows, labels, 2.0, k, m, bank=bank, numbers=numbers)
        assert terms.total.item() == pytest.approx(expected, rel=rtol)
        assert terms.triplets == count
        assert terms.active == active


def test_a_bank_of_the_batch_gives_the_loss_of_the_batch(make_batch):
    rows, labels = make_batch((4, 7, 5))
    numbers = torch.arange(len(labels))
    bank = FeatureBank(rows, labels, numbers)
    banked = deep_knn(rows, labels, bank=bank, numbers=numbers)
    assert banked.total.item() == pytest.approx(deep_knn(rows, labels).total.item(), rel=1e-12)


def test_gradients_with_a_bank_equal_finite_differences_and_are_the_anchors_alone(make_banked):
    rows, labels, numbers, bank = make_banked((9, 8, 10), dim=4)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: deep_knn(x, labels, bank=bank, numbers=numbers).total, rows
    )
    # One anchor moves by its own terms: in the batch it would be a neighbour of others too.
    alone = rows[:1].detach().requires_grad_()
    deep_knn(alone, labels[:1], bank=bank, numbers=numbers[:1]).total.backward()
    deep_knn(rows, labels, bank=bank, numbers=numbers).total.backward()
    torch.testing.assert_close(rows.grad[0], alone.grad[0] / len(rows))


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [([0, 0, 0], [0, 1, 2]), ([0, 1, 2], [0, 1, 2]), ([0, 1, 1], [5, 5, 5]), ([], [])],
)
def test_a_bank_without_any_triplet_is_a_loss_of_zero_with_a_graph(labels, numbers):
    rows = torch.randn(2, 4, requires_grad=True)
    features = torch.randn(len(labels), 4)
    bank = FeatureBank(
        features, torch.tensor(labels, dtype=torch.int64), torch.tensor(numbers, dtype=torch.int64)
    )
    terms = deep_knn(rows, torch.tensor([0, 0]), bank=bank, numbers=torch.tensor([5, 5]))
    if labels == [0, 1, 2]:  # a row that is not its own entry has neighbours there
        assert terms.triplets == 4
        return
    terms.total.backward()
    assert terms.total == 0
    assert (rows.grad == 0).all()


def test_rows_identical_to_those_of_the_bank_have_a_finite_gradient():
    rows = torch.ones(3, 4, requires_grad=True)
    bank = FeatureBank(torch.ones(9, 4), torch.arange(9) % 2, torch.arange(9))
    terms = deep_knn(rows, torch.tensor([0, 1, 0]), alpha=0.5, bank=bank, numbers=torch.arange(3))
    terms.total.backward()
    assert terms.total == 0.5
    assert (rows.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_a_bank_is_widened(make_banked, dtype):
    rows, labels, numbers, bank = make_banked((9, 9), scale=300)
    half = FeatureBank(bank.features.to(dtype), bank.labels, bank.numbers)
    terms = deep_knn(rows.to(dtype), labels, bank=half, numbers=numbers)
    expected, _, _ = _literal(rows.to(dtype), labels, 2.0, 5, 5, bank=half, numbers=numbers)
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)


def test_a_bank_needs_the_numbers_of_the_batch(make_banked):
    rows, labels, _, bank = make_banked((5, 5))
    with pytest.raises(ValueError, match="numbers"):
        deep_knn(rows, labels, bank=bank)
