"""An even sample of a stream, without knowing its length."""

from __future__ import annotations

from itertools import pairwise

import pytest

from patchknn.evaluation.sample import EvenSample


@pytest.mark.parametrize("length", [0, 1, 19, 20])
def test_a_short_stream_is_kept_whole(length):
    sample: EvenSample[int] = EvenSample(20)
    for item in range(length):
        sample.add(item)
    assert sample.items() == list(range(length))
    assert sample.seen == length


@pytest.mark.parametrize("length", [21, 39, 40, 41, 80, 81, 607, 100_000])
def test_a_long_stream_is_sampled_evenly_and_in_order(length):
    sample: EvenSample[int] = EvenSample(20)
    for item in range(length):
        sample.add(item)
        assert len(sample._kept) <= 40
    items = sample.items()
    assert len(items) == 20
    gaps = [later - earlier for earlier, later in pairwise(items)]
    assert items[0] == 0
    assert min(gaps) > 0
    assert max(gaps) <= 2 * min(gaps)
    assert length - items[-1] <= 2 * max(gaps)
