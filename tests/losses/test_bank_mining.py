"""Neighbours in a bank against plain loops, also where the matrix product misjudges distances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from patchknn.losses import bank_mining
from patchknn.losses.bank import FeatureBank
from patchknn.losses.bank_mining import bank_neighbours


def _literal(batch, bank, k, m):
    """Rows of the bank for each anchor: the K of its class and the M of others, by loops."""
    points = bank.features.double().tolist()
    classes, known = bank.labels.tolist(), bank.numbers.tolist()
    features, labels, numbers = (part.tolist() for part in batch)
    found = []
    for x, label, number in zip(features, labels, numbers, strict=True):
        ranked = sorted(
            (j for j in range(len(points)) if known[j] != number),
            key=lambda j: math.dist(x, points[j]),
        )
        found.append(
            (
                [j for j in ranked if classes[j] == label][:k],
                [j for j in ranked if classes[j] != label][:m],
            )
        )
    return found


def _check(batch, bank, k, m):
    near, far = bank_neighbours(*batch, bank, positives=k, negatives=m)
    expected = _literal(batch, bank, k, m)
    for a, (same, other) in enumerate(expected):
        assert near.index[a][near.valid[a]].tolist() == same
        assert far.index[a][far.valid[a]].tolist() == other


@pytest.fixture
def make_bank(make_batch):
    def make(sizes, dtype=torch.float64, **options):
        rows, labels = make_batch(sizes, dtype=dtype, **options)
        numbers = torch.arange(len(labels)).flip(0) + 100
        return FeatureBank(rows, labels, numbers)

    return make


@pytest.mark.parametrize("block", [1, 50, 1 << 21])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", [(40, 30, 70), (1, 3, 60), (90,)])
def test_equals_plain_loops(monkeypatch, make_bank, sizes, dtype, block):
    monkeypatch.setattr(bank_mining, "_BLOCK_ELEMENTS", block)
    bank = make_bank(sizes, dtype)
    chosen = torch.arange(0, len(bank.labels), 7)
    moved = bank.features[chosen] + 0.1
    for k, m in ((5, 5), (1, 50), (50, 1)):
        _check((moved, bank.labels[chosen], bank.numbers[chosen]), bank, k, m)


def test_rows_that_are_not_in_the_bank_have_all_of_it(make_bank):
    bank = make_bank((4, 4))
    _check((bank.features[:3], bank.labels[:3], torch.tensor([7, 8, 9])), bank, 10, 10)


@pytest.mark.parametrize("offset", [30.0, 1e3])
def test_the_ranking_is_exact_where_the_product_is_not(make_bank, offset):
    bank = make_bank((60, 60), torch.float32, dim=16, scale=0.05)
    # Two clusters far from 0 and from each other: products round off more than the distances are.
    features = bank.features + offset * (1 + bank.labels[:, None])
    bank = FeatureBank(features, bank.labels, bank.numbers)
    products = (features.square().sum(1)[:, None] + features.square().sum(1)) - 2 * (
        features @ features.T
    )
    exact = torch.cdist(features.double(), features.double()).square()
    same = bank.labels[:, None] == bank.labels
    assert (products - exact)[same].abs().max() > exact[same & (exact > 0)].min()  # the trap
    _check((features, bank.labels, bank.numbers), bank, 5, 5)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    values=st.lists(st.integers(-1, 1), min_size=12, max_size=12),
    block=st.integers(1, 12),
)
def test_duplicates_are_taken_in_the_order_of_the_bank(labels, values, block):
    features = torch.tensor(values[: len(labels)], dtype=torch.float64)[:, None]
    bank = FeatureBank(features, torch.tensor(labels), torch.arange(len(labels)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank_mining, "_BLOCK_ELEMENTS", block)
        _check((features, bank.labels, bank.numbers), bank, 3, 2)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_broken_entries_neither_vanish_nor_stand_in_for_what_is_missing(broken):
    features = torch.full((4, 2), broken)
    bank = FeatureBank(features, torch.tensor([0, 0, 1, 1]), torch.arange(4))
    near, far = bank_neighbours(features, bank.labels, bank.numbers, bank, positives=3, negatives=3)
    assert near.valid.sum(dim=1).tolist() == [1, 1, 1, 1]
    assert far.valid.sum(dim=1).tolist() == [2, 2, 2, 2]


class _LargestTensor(TorchDispatchMode):
    """Notes the most elements that an operation puts into memory of its own."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, one.numel())
        return result


def test_memory_does_not_grow_with_the_bank(monkeypatch, make_bank):
    monkeypatch.setattr(bank_mining, "_BLOCK_ELEMENTS", 4096)
    largest = []
    for size in (500, 4000):
        bank = make_bank((size, size), torch.float32, dim=16)
        chosen = torch.arange(16)
        with _LargestTensor() as watch:
            batch = bank.features[chosen], bank.labels[chosen], bank.numbers[chosen]
            bank_neighbours(*batch, bank, positives=5, negatives=5)
        largest.append(watch.elements)
    # Neither the bank (8000 × 16) nor all of its products (16 × 8000) are ever made.
    assert largest[0] == largest[1] < 16 * 8000 / 4
