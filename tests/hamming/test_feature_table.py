"""The rows nearest to a query within ranges of positions, against literal brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming import feature_table, kernels
from patchknn.hamming.feature_table import FeatureTable

EVERY = kernels.available()


@pytest.fixture
def rng():
    return np.random.default_rng(20260801)


def brute_force(features, query, ranges, k, rows=None):
    """(distance, position) of the k nearest and of all that tie with the last, in order."""
    found = []
    for start, stop in ranges:
        for position in range(start, stop):
            row = features[position if rows is None else rows[position]].astype(np.float64)
            squares = np.zeros(-(-len(row) // 8) * 8)
            with np.errstate(over="ignore"):
                squares[: len(row)] = (row - query.astype(np.float64)) ** 2
            s = [0.0] * 8
            for place, square in enumerate(squares.tolist()):
                s[place % 8] += square
            total = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
            found.append((float(np.sqrt(total)), position))
    found.sort()
    if len(found) <= k:
        return found if k > 0 else []
    return [pair for pair in found if k > 0 and pair[0] <= found[k - 1][0]]


def pairs(answer):
    positions, distances = answer[:2]
    assert positions.dtype == np.int64
    assert distances.dtype == np.float64
    return list(zip(distances.tolist(), positions.tolist(), strict=True))


def split(random, features, n_parts):
    """As several arrays, some of them empty."""
    cuts = np.sort(random.integers(0, len(features) + 1, n_parts - 1))
    return [np.ascontiguousarray(part) for part in np.split(features, cuts)]


def draw_ranges(random, n, count):
    edges = np.sort(random.integers(0, n + 1, 2 * count))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


KINDS = ["plain", "ties", "huge", "tiny", "mixed", "shifted"]


def make_features(random, kind, n, dim, dtype):
    """Features (n + 1, D), the last being the query, such as strain a float32 sum."""
    values = random.normal(size=(n + 1, dim))
    if kind == "ties":
        values = random.integers(0, 2, (n + 1, dim)).astype(float)
    elif kind == "huge":
        values *= 6e4 if dtype == "float16" else 10.0 ** random.uniform(18, 38)
    elif kind == "tiny":
        values *= 2.0**-20 if dtype == "float16" else 10.0 ** random.uniform(-45, -18)
    elif kind == "mixed":
        values *= 10.0 ** random.uniform(
            *((-7, 4) if dtype == "float16" else (-40, 37)), values.shape
        )
    elif kind == "shifted":  # far away and close together: float32 can hardly tell them apart
        values = 1000 + values * (1 if dtype == "float16" else 1e-4)
    limit = float(np.finfo(dtype).max)
    return np.clip(values, -limit, limit).astype(dtype)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 60),
    dim=st.integers(1, 40),
    k=st.integers(0, 70),
    n_parts=st.integers(1, 4),
    n_ranges=st.integers(0, 4),
    mapped=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_finds_what_brute_force_finds(
    *, name, dtype, kind, n, dim, k, n_parts, n_ranges, mapped, seed
):
    random = np.random.default_rng(seed)
    values = make_features(random, kind, n, dim, dtype)
    features, query = values[:n], values[n]
    rows = random.permutation(n).astype(np.uint32) if mapped else None
    ranges = draw_ranges(random, n, n_ranges)
    starts, stops = np.array(ranges, np.int64).reshape(-1, 2).T
    with kernels.use(name):
        table = FeatureTable(split(random, features, n_parts), rows=rows)
        answer = table.nearest(query, starts, stops, k)
    assert pairs(answer) == brute_force(features, query, ranges, k, rows)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 10, 700, 5000])
def test_many_rows_that_a_float32_can_hardly_tell_apart(rng, name, kind, k):
    values = make_features(rng, kind, 3000, 24, "float32")
    values[rng.integers(0, 3000, 300)] = values[7]
    query = np.nextafter(values[7], np.float32(np.inf))
    ranges = [(0, 900), (1000, 1001), (1001, 3000)]
    starts, stops = np.array(ranges).T
    with kernels.use(name):
        answer = FeatureTable(split(rng, values[:3000], 5)).nearest(query, starts, stops, k)
    assert pairs(answer) == brute_force(values, query, ranges, k)


@pytest.mark.parametrize("name", EVERY)
def test_rows_one_rounding_apart_are_ordered_by_float64(rng, name):
    """Distances whose float32 sums are equal, or even in the wrong order."""
    base = rng.normal(size=256).astype(np.float32)
    features = np.repeat(base[None], 500, axis=0)
    for row in range(500):
        place = rng.integers(0, 256, 3)
        features[row, place] = np.nextafter(features[row, place], np.float32(np.inf))
    query = (base + rng.normal(size=256)).astype(np.float32)
    with kernels.use(name):
        answer = FeatureTable([features]).nearest(query, [0], [500], 20)
    assert pairs(answer) == brute_force(features, query, [(0, 500)], 20)


@pytest.mark.parametrize("name", EVERY)
def test_a_query_that_float32_cannot_hold(rng, name):
    features = rng.normal(size=(200, 20)).astype(np.float32)
    for query in (
        features[3] + rng.normal(size=20) * 1e-9,
        np.full(20, 1e39),
        np.full(20, 1e-50),
        np.full(20, 1e200),
    ):
        with kernels.use(name):
            answer = FeatureTable([features]).nearest(query, [0], [200], 5)
        assert pairs(answer) == brute_force(features, query, [(0, 200)], 5)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_out_of_range_is_refused(rng, name):
    features = rng.normal(size=(40, 6)).astype(np.float16)
    query = np.zeros(6)
    with kernels.use(name):
        table = FeatureTable([features[:30], features[30:]])
        for start, stop in ((-1, 3), (4, 3), (0, 41), (41, 41), (1 << 62, 1 << 62)):
            with pytest.raises(ValueError, match="position"):
                table.nearest(query, [start], [stop], 3)
        for bad in (np.nan, np.inf):
            with pytest.raises(ValueError, match="NaN"):
                table.nearest(np.full(6, bad), [0], [40], 3)
        with pytest.raises(ValueError, match="does not fit"):
            table.nearest(np.zeros(7), [0], [40], 3)
        rows = np.arange(40, dtype=np.uint32)
        for value in (40, 1 << 31, (1 << 32) - 1):
            rows[17] = value
            damaged = FeatureTable([features], rows=rows)
            with pytest.raises(ValueError, match="out of range"):
                damaged.nearest(query, [10], [20], 3)
            assert len(damaged.nearest(query, [20], [30], 3)[0]) == 3


@pytest.mark.parametrize("name", EVERY)
def test_arrays_that_do_not_fit_are_refused(name):
    half = np.zeros((4, 6), np.float16)
    with kernels.use(name):
        for arrays in (
            [],
            [half, np.zeros((4, 7), np.float16)],
            [half, np.zeros((4, 6), np.float32)],
        ):
            with pytest.raises(ValueError, match="features"):
                FeatureTable(arrays)
        with pytest.raises(ValueError, match="rows of shape"):
            FeatureTable([half], rows=np.zeros(5, np.uint32))


@pytest.mark.parametrize("name", EVERY)
def test_rows_are_read_from_a_file_in_place(rng, tmp_path, name):
    features = rng.normal(size=(5000, 96)).astype(np.float16)
    (tmp_path / "features.bin").write_bytes(b"abc" + features.tobytes())
    mapped = np.memmap(tmp_path / "features.bin", np.float16, "r", 3, features.shape)
    ranges = [(3, 1700), (1900, 1901), (2500, 4999)]
    starts, stops = np.array(ranges).T
    with kernels.use(name):
        answer = FeatureTable([mapped[:2000], mapped[2000:]]).nearest(features[9], starts, stops, 9)
    assert pairs(answer) == brute_force(features, features[9], ranges, 9)
    assert answer[2].rows_read == 1697 + 1 + 2499


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_the_rows_of_one_query(rng, name, threads, monkeypatch):
    monkeypatch.setattr(feature_table, "_WORTH_SHARING", 1)
    features = rng.integers(0, 3, (4000, 64)).astype(np.float16)
    starts = np.array([10, 11, 12, 2000, 3999])
    stops = np.array([11, 12, 1900, 3998, 4000])
    with kernels.use(name):
        table = FeatureTable([features[:900], features[900:]])
        alone = table.nearest(features[7], starts, stops, 25)
        for _ in range(8):  # shared or not, as it finds out which is faster
            found = table.nearest(features[7], starts, stops, 25, threads=threads)
            assert pairs(found) == pairs(alone)
            assert found[2].rows_read == alone[2].rows_read
