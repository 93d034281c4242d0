"""Class-balanced batches."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.datasets.balanced import BalancedBatchSampler
from patchknn.errors import InputError


@given(
    st.lists(st.integers(-1, 5), min_size=1, max_size=60).filter(lambda x: max(x) >= 0),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_every_batch_is_balanced_and_has_no_row_twice(labels, classes, per_class, seed):
    sizes = Counter(label for label in labels if label >= 0)
    sampler = BalancedBatchSampler(labels, classes, per_class, seed)
    batches = list(sampler)
    assert len(batches) == len(sampler) >= 1
    for batch in batches:
        assert len(set(batch)) == len(batch)
        counts = Counter(labels[row] for row in batch)
        assert len(counts) == min(classes, len(sizes))
        assert -1 not in counts
        assert all(count == min(per_class, sizes[label]) for label, count in counts.items())


def test_every_row_of_a_class_comes_up_before_any_comes_again():
    sampler = BalancedBatchSampler([0] * 12 + [1] * 4, 2, 3, seed=0, batches=4)
    rows = [row for batch in sampler for row in batch if row < 12]
    assert sorted(rows) == list(range(12))


def test_seed_and_epoch_decide():
    def batches(seed, epoch):
        sampler = BalancedBatchSampler(list(range(5)) * 8, 3, 4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


def test_without_labels_there_is_nothing_to_balance():
    with pytest.raises(InputError, match="No image has a label"):
        BalancedBatchSampler([-1, -1], 2, 2, seed=0)
