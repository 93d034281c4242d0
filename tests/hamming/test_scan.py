"""The scan of bare shards, by every kernel, against counting bits one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.hamming import kernels
from patchknn.hamming.packing import unpack_bits
from patchknn.hamming.scan import scan_rows


def _check(found, codes: np.ndarray, queries: np.ndarray, radius: int) -> None:
    offsets, rows, distances = found
    assert (offsets.dtype, rows.dtype, distances.dtype) == (np.int64, np.int64, np.uint16)
    assert len(offsets) == len(queries) + 1
    bits = unpack_bits(codes)
    for query, (first, last) in enumerate(pairwise(offsets)):
        away = (bits != unpack_bits(queries[query : query + 1])).sum(axis=1)
        expected = np.flatnonzero(away <= radius)
        assert rows[first:last].tolist() == expected.tolist()
        assert distances[first:last].tolist() == away[expected].tolist()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_kernel_agrees_with_brute_force(data):
    n_bytes = data.draw(st.integers(1, 24) | st.integers(1, 128))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n = data.draw(st.integers(0, 70))
    near = data.draw(st.booleans())
    codes = generator.integers(0, 2 if near else 256, (n, n_bytes), np.uint8)
    queries = generator.integers(0, 2 if near else 256, (3, n_bytes), np.uint8)
    radius = data.draw(st.integers(0, 8 * n_bytes))
    # Shards map their codes at any byte.
    held = np.zeros(n * n_bytes + 9, np.uint8)
    start = data.draw(st.integers(0, 8))
    held[start : start + codes.size] = codes.ravel()
    codes = held[start : start + codes.size].reshape(codes.shape)
    for name in kernels.available():
        with kernels.use(name):
            _check(scan_rows(codes, queries, radius), codes, queries, radius)


@pytest.mark.parametrize("name", kernels.available())
@pytest.mark.parametrize("n_queries", [1, 5])
def test_threads_share_queries_or_rows(name, n_queries, monkeypatch):
    monkeypatch.setattr("patchknn.hamming.scan._WORTH_SHARING", 1000)
    codes = np.random.default_rng(2).integers(0, 16, (70_000, 6), np.uint8)
    with kernels.use(name):
        _check(scan_rows(codes, codes[:n_queries], 9, threads=2), codes, codes[:n_queries], 9)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        scan_rows(np.zeros((3, 6), np.uint8), np.zeros((1, 8), np.uint8), 1)
