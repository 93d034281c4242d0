"""The one float64 distance: the same bits from every kernel, and those of its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming import kernels
from patchknn.hamming.exact import l2_distances

EVERY = kernels.available()


@pytest.fixture
def rng():
    return np.random.default_rng(20260801)


def by_definition(row, query):
    """Eight lanes added one after the other, in plain Python floats."""
    lanes = [0.0] * 8
    for place, (a, b) in enumerate(zip(row.tolist(), query.tolist(), strict=True)):
        lanes[place % 8] += (a - b) * (a - b)
    s = lanes
    return math.sqrt(((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@given(dim=st.integers(1, 70), n=st.integers(0, 9), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_every_kernel_gives_the_bits_of_the_definition(*, name, dtype, dim, n, seed, data):
    random = np.random.default_rng(seed)
    largest = 4 if dtype == "float16" else 37
    powers = 10.0 ** random.uniform(-largest - 4, largest, (n + 1, dim))
    values = (random.normal(size=(n + 1, dim)) * powers).clip(-6e4, 6e4).astype(dtype)
    features, query = values[:n], values[n]
    rows = data.draw(
        st.none() | st.lists(st.integers(0, max(0, n - 1)), max_size=0 if n == 0 else 9)
    )
    chosen = range(n) if rows is None else rows
    with kernels.use(name):
        found = l2_distances(features, query, None if rows is None else np.array(rows, np.int64))
    assert found.dtype == np.float64
    assert found.tolist() == [by_definition(features[row], query) for row in chosen]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("dim", [1, 8, 129, 512, 1000, 8192])
def test_all_kernels_agree_alone_and_among_many(rng, dtype, dim):
    features = rng.normal(size=(300, dim)).astype(dtype)
    query = rng.normal(size=dim)
    together = [l2_distances(features, query)]
    for name in EVERY:
        with kernels.use(name):
            together.append(l2_distances(features, query))
            rows = rng.permutation(300)[:77]
            assert (l2_distances(features, query, rows) == together[0][rows]).all()
            assert l2_distances(features[41:42], query)[0] == together[0][41]
    for other in together[1:]:
        assert (other == together[0]).all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64"])
def test_features_may_lie_in_memory_in_any_way(rng, name, dtype):
    features = rng.normal(size=(50, 37)).astype(dtype)
    query = rng.normal(size=37)
    expected = [by_definition(row, query) for row in features]
    wide = np.zeros((50, 60), dtype)
    wide[:, :37] = features
    raw = np.frombuffer(b"\0" + features.tobytes(), np.uint8)[1:]
    with kernels.use(name):
        for same in (
            features,
            wide[:, :37],
            np.asfortranarray(features),
            raw.view(dtype).reshape(features.shape),
        ):
            assert l2_distances(same, query).tolist() == expected


@pytest.mark.parametrize("name", EVERY)
def test_every_float16_is_read_as_what_it_is(name):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].reshape(-1, 1)
    with kernels.use(name):
        found = l2_distances(every, np.zeros(1))
    assert (found == np.abs(every[:, 0].astype(np.float64))).all()


@pytest.mark.parametrize("name", EVERY)
def test_the_largest_float32_features_do_not_overflow(name):
    features = np.full((2, 4), np.finfo(np.float32).max, np.float32)
    with kernels.use(name):
        found = l2_distances(features, -features[0])
    assert found[0] == pytest.approx(4 * float(np.finfo(np.float32).max))


@pytest.mark.parametrize("name", EVERY)
def test_what_does_not_fit_is_refused(name):
    features = np.zeros((3, 4), np.float16)
    with kernels.use(name):
        for rows in ([3], [-1], [0, 1, 1 << 62]):
            with pytest.raises(ValueError, match="outside the features"):
                l2_distances(features, np.zeros(4), np.array(rows))
        with pytest.raises(ValueError, match="do not fit"):
            l2_distances(features, np.zeros(5))
