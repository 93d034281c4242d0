"""On a GPU no loss waits for a value: shown on tensors that have a device but no values."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from patchknn.losses.bank import FeatureBank
from patchknn.losses.deep_knn import deep_knn
from patchknn.losses.multitask import multitask
from patchknn.losses.triplet import triplet


@pytest.fixture
def batch():
    """Features (24, 16) and labels (24,) on a GPU that need not be there."""
    with FakeTensorMode():
        labels = torch.zeros(24, dtype=torch.int64, device="cuda")
        yield torch.zeros(24, 16, device="cuda", requires_grad=True), labels


def test_asking_for_a_value_would_be_noticed(batch):
    with pytest.raises(DataDependentOutputException):
        int(batch[1].sum())


@pytest.mark.parametrize("margin", [None, 0.2])
@pytest.mark.parametrize("mining", ["batch-hard", "semi-hard", "easy-positive", "all"])
def test_triplet(batch, mining, margin):
    terms = triplet(*batch, mining=mining, margin=margin, only_active=True)
    assert terms.total.device.type == terms.active.device.type == "cuda"


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_multitask(batch, distance):
    rows, labels = batch
    terms = multitask(rows, rows[:, :3], labels, distance=distance)
    assert terms.total.device.type == terms.saturated.device.type == "cuda"


@pytest.mark.parametrize("banked", [False, True])
def test_deep_knn(batch, banked):
    rows, labels = batch
    bank = FeatureBank(rows.detach(), labels, labels) if banked else None
    assert deep_knn(rows, labels, bank=bank, numbers=labels).total.device.type == "cuda"
