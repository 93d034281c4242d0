"""Least distances to groups of codes, against a literal loop over bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming import minima
from patchknn.hamming.minima import group_minima, word_columns
from patchknn.hamming.packing import unpack_bits


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(1, 5),
    st.sampled_from([1, 6, 8, 9, 33, 128]),
    st.integers(1, 20),
    st.integers(1, 3),
)
def test_as_a_loop_over_bits(seed, sizes, n_queries, width, block, threads):  # noqa: PLR0917
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    codes = rng.integers(0, 256, (starts[-1], width), np.uint8)
    queries = rng.integers(0, 256, (n_queries, width), np.uint8)
    bits, wanted = unpack_bits(codes), unpack_bits(queries)
    expected = [
        [min(int((wanted[q] != bits[row]).sum()) for row in range(a, b)) for a, b in pairs]
        for pairs in [list(itertools.pairwise(starts))]
        for q in range(n_queries)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minima, "_BLOCK", block)
        found = group_minima(word_columns(codes), starts, queries, threads)
    assert found.tolist() == expected


def test_no_groups_are_no_distances():
    columns = word_columns(np.zeros((0, 6), np.uint8))
    assert group_minima(columns, np.zeros(1, np.int64), np.zeros((2, 6), np.uint8)).shape == (2, 0)


@pytest.mark.parametrize("starts", [[0, 2, 2, 4], [1, 4], [0, 3], [0, 3, 2, 4]])
def test_groups_must_be_whole(starts):
    columns = word_columns(np.zeros((4, 6), np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        group_minima(columns, np.array(starts), np.zeros((1, 6), np.uint8))
