"""Sorted codes of many shards become one sorted sequence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.archive.index.merge import UnsortedError, merged
from patchknn.hamming.packing import sort_order, words


def _runs(data, width):
    """Runs drawn from few codes or from many."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    vocabulary = generator.integers(
        0, 256, (data.draw(st.sampled_from([1, 2, 5, 300])), width), dtype=np.uint8
    )
    runs = []
    for n in data.draw(st.lists(st.integers(1, 120), min_size=1, max_size=7)):
        codes = vocabulary[generator.integers(0, len(vocabulary), n)]
        runs.append(codes[sort_order(codes)])
    return runs


@given(st.data(), st.sampled_from([1, 3, 6, 8, 9, 128]), st.sampled_from([2, 16, 50, 100_000]))
def test_it_is_what_sorting_all_of_it_gives(data, width, block_rows):
    runs = _runs(data, width)
    blocks = list(merged(runs, block_rows=block_rows))
    together = np.concatenate(runs)
    order = sort_order(together)
    assert np.array_equal(np.concatenate([block.rows for block in blocks]), order)
    distinct, counts = np.unique(together, axis=0, return_counts=True)
    assert np.array_equal(np.concatenate([block.codes for block in blocks]), words(distinct))
    assert np.array_equal(np.concatenate([block.counts for block in blocks]), counts)


def test_a_block_stays_small_however_frequent_a_code_is():
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(5):
        codes = generator.integers(0, 256, (4000, 8), dtype=np.uint8)
        codes[:3000] = 7
        runs.append(codes[sort_order(codes)])
    assert max(len(block.rows) for block in merged(runs, block_rows=500)) <= 500


@pytest.mark.parametrize("block_rows", [16, 10_000])
@pytest.mark.parametrize("width", [8, 16])
def test_a_run_that_is_not_sorted_is_refused(block_rows, width):
    generator = np.random.default_rng(0)
    for _ in range(20):
        runs = []
        for _ in range(3):
            codes = generator.integers(0, 256, (100, width), dtype=np.uint8)
            runs.append(codes[sort_order(codes)])
        a, b = sorted(generator.choice(100, 2, replace=False))
        runs[1][[a, b]] = runs[1][[b, a]]
        with pytest.raises(UnsortedError):
            list(merged(runs, block_rows=block_rows))
