"""Many queries at once find what each finds alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.hamming import feature_batch, kernels
from patchknn.hamming.exact import l2_distances
from patchknn.hamming.feature_table import FeatureTable
from patchknn.hamming.sketch import WIDTH, Projection, Sketch, fit_projection

EVERY = kernels.available()


@pytest.fixture
def everything_shared(monkeypatch):
    """Small inputs go through the matrix product, too, in several blocks."""
    monkeypatch.setattr(feature_batch, "_LEAST_QUERIES", 1)
    monkeypatch.setattr(feature_batch, "_LEAST_PRODUCTS", 1)
    monkeypatch.setattr(feature_batch, "_TASK_VALUES", 1)


def alone(features, query, ranges, k):
    """Positions and distances by brute force, in order, ties included."""
    positions = np.array([p for start, stop in ranges for p in range(start, stop)], np.int64)
    distances = l2_distances(features, query.astype(np.float64))[positions]
    order = np.lexsort((positions, distances))
    kept = distances[order] <= (np.sort(distances)[k - 1] if 0 < k <= len(order) else np.inf)
    kept &= k > 0
    return positions[order][kept].tolist(), distances[order][kept].tolist()


def some_sketch(features, random):
    """Of features by position: random directions, a few damaged. None where all are the same."""
    dim = features.shape[1]
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    largest = np.linalg.norm(values - mean, axis=1).max()
    if largest == 0:
        return None
    matrix = np.zeros((WIDTH - 1, dim))
    directions = np.linalg.qr(random.normal(size=(dim, min(dim, WIDTH - 1))))[0].T
    matrix[: len(directions)] = directions * 0.999
    projection = Projection(mean, matrix, largest / 200)
    sketches, slack = projection.bounded_sketch(features)
    sketches[random.random(len(sketches)) < 0.05] = np.nan
    return Sketch(projection, sketches, slack)


def check(table, features, queries, per_query, counts, **options):
    flat = np.array([pair for of in per_query for pair in of], np.int64).reshape(-1, 2)
    offsets = np.cumsum([0] + [len(of) for of in per_query])
    work = np.full((len(queries), 2), -1)
    found, positions, distances = table.nearest_many(
        queries, offsets, flat[:, 0], flat[:, 1], counts, work=work, **options
    )
    assert len(found) == len(queries) + 1
    for i, (query, ranges) in enumerate(zip(queries, per_query, strict=True)):
        k = counts if isinstance(counts, int) else int(counts[i])
        own = slice(found[i], found[i + 1])
        expected = alone(features, query, ranges, k)
        assert (positions[own].tolist(), distances[own].tolist()) == expected
        n_rows = sum(stop - start for start, stop in ranges)
        assert work[i].sum() == (n_rows if k else 0)
        assert (work[i] >= 0).all()
    return work


@pytest.mark.usefixtures("everything_shared")
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@given(
    kind=st.sampled_from(
        ["plain", "ties", "large", "huge", "tiny", "shifted", "clusters", "outlier"]
    ),
    n=st.integers(1, 260),
    dim=st.integers(1, 40),
    n_queries=st.integers(1, 9),
    mapped=st.booleans(),
    sketched=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_finds_what_it_finds_alone(
    *, name, dtype, kind, n, dim, n_queries, mapped, sketched, seed
):
    random = np.random.default_rng(seed)
    values = random.normal(size=(n + n_queries, dim))
    if kind == "ties":
        values = random.integers(0, 2, values.shape).astype(float)
    elif kind == "large":
        values *= 3e4 if dtype == "float16" else 1e16
    elif kind == "huge":
        values *= 10.0 ** random.uniform(0, 4 if dtype == "float16" else 38)
    elif kind == "tiny":
        values *= 10.0 ** random.uniform(*((-8, 0) if dtype == "float16" else (-45, 0)))
    elif kind == "shifted":
        values = values * 1e-3 + 500
    elif kind == "clusters":
        values = values * 1e-3 + 50 * random.integers(0, 2, (len(values), 1))
    elif kind == "outlier":
        values[random.integers(0, len(values))] *= 1e4 if dtype == "float16" else 1e30
    limit = float(np.finfo(dtype).max)
    values = np.clip(values, -limit, limit).astype(dtype)
    order = random.permutation(n)
    features, queries = values[:n][order], values[n:]
    stored = np.empty_like(features)
    stored[order] = features
    arrays = np.split(stored if mapped else features, [n // 3])
    edges = [np.sort(random.integers(0, n + 1, 2 * random.integers(0, 4))) for _ in queries]
    per_query = [list(zip(e[::2].tolist(), e[1::2].tolist(), strict=True)) for e in edges]
    counts = random.integers(0, 20, n_queries)
    with kernels.use(name):
        table = FeatureTable(
            arrays,
            rows=order.astype(np.uint32) if mapped else None,
            sketch=some_sketch(features, random) if sketched else None,
        )
        check(table, features, queries, per_query, counts)


@pytest.mark.usefixtures("everything_shared")
@pytest.mark.parametrize("name", EVERY)
@given(
    kind=st.sampled_from(["near few directions", "ties", "far apart", "far queries", "tiny"]),
    dim=st.sampled_from([3, 33, 70]),
    n_queries=st.integers(1, 70),
    k=st.sampled_from([0, 1, 10, 100, 2000]),
    half=st.booleans(),
    mapped=st.booleans(),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30)
def test_sketches_rule_out_no_row_of_an_answer(
    *, name, kind, dim, n_queries, k, half, mapped, threads, seed
):
    random = np.random.default_rng(seed)
    n = 1500
    values = random.normal(size=(n, 3)) @ random.normal(size=(3, dim))
    values += random.normal(size=(n, dim)) * 10.0 ** random.uniform(-4, 0)
    if kind == "ties":
        values = values[random.integers(0, 40, n)]
    elif kind == "far apart":
        values += 100 * random.integers(0, 3, (n, 1))
    elif kind == "tiny":
        values *= 1e-4 if half else 1e-36
    features = values.astype(np.float16 if half else np.float32)
    queries = features[random.integers(0, n, n_queries)].astype(np.float64)
    queries += random.normal(size=queries.shape) * values.std() * 0.01
    if kind == "far queries":
        queries[::2] *= 10.0 ** random.uniform(0, 100)
    order = random.permutation(n)
    stored = np.empty_like(features)
    stored[order] = features
    per_query = [[(0, 700), (800, n)] for _ in queries]
    with kernels.use(name):
        table = FeatureTable(
            [stored if mapped else features],
            rows=order.astype(np.uint32) if mapped else None,
            sketch=some_sketch(features, random),
        )
        check(table, features, queries, per_query, k, threads=threads)


@pytest.mark.parametrize("name", EVERY[1:])
def test_sketches_spare_most_rows_near_few_directions(name):
    random = np.random.default_rng(3)
    features = random.normal(size=(20000, 4)) @ random.normal(size=(4, 300))
    features = (features + 0.01 * random.normal(size=features.shape)).astype(np.float16)
    projection = fit_projection(features)
    sketch = Sketch(projection, *projection.bounded_sketch(features))
    queries = features[:50].astype(np.float64)
    with kernels.use(name):
        table = FeatureTable([features], sketch=sketch)
        work = check(table, features, queries, [[(0, 20000)]] * 50, 10)
    assert work[:, 0].mean() < 2000


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("threads", [1, 3])
def test_collapsed_codes_with_some_rows_apart(name, threads):
    """Runs that most queries share, as trained codes make them, beside small ones."""
    random = np.random.default_rng(5)
    features = random.normal(size=(6000, 48)).astype(np.float16)
    features[random.integers(0, 6000, 500)] = features[3]
    bounds = [0, 1500, 1503, 1600, 3900, 3901, 6000]
    runs = list(itertools.pairwise(bounds))
    queries = np.concatenate([features[:40], random.normal(size=(3, 48)).astype(np.float16)])
    per_query = [[runs[i] for i in sorted(random.permutation(6)[:4])] for _ in queries]
    per_query[7] = []
    with kernels.use(name):
        table = FeatureTable([features[:2000], features[2000:2000], features[2000:]])
        check(table, features, queries, per_query, 10, threads=threads)
        check(table, features, queries, per_query, np.arange(43), threads=threads)
        check(table, features, queries, [[(0, 6000)]] * 43, 700, threads=threads)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("k", [1 << 40, 1 << 62, (1 << 63) - 1])
def test_any_number_is_asked_for(name, k):
    random = np.random.default_rng(3)
    features = random.normal(size=(600, 16)).astype(np.float32)
    queries = random.normal(size=(20, 16))
    ends = np.full(20, 600)
    with kernels.use(name):
        table = FeatureTable([features])
        offsets, positions, _ = table.nearest_many(queries, range(21), 0 * ends, ends, k)
        assert len(table.nearest(queries[0], [0], [600], 4 * k)[0]) == 600
    assert offsets.tolist() == (600 * np.arange(21)).tolist()
    assert sorted(positions[:600].tolist()) == list(range(600))


@pytest.mark.parametrize("name", EVERY)
def test_no_queries_and_ranges_that_do_not_fit(name):
    features = np.zeros((10, 4), np.float16)
    none = np.empty(0, np.int64)
    with kernels.use(name):
        table = FeatureTable([features])
        found = table.nearest_many(np.empty((0, 4)), np.zeros(1, np.int64), none, none, 3)
        assert [part.tolist() for part in found] == [[0], [], []]
        for start, stop in ((-1, 3), (4, 3), (0, 11)):
            with pytest.raises(ValueError, match="position"):
                table.nearest_many(np.zeros((1, 4)), [0, 1], [start], [stop], 3)
        with pytest.raises(ValueError, match="do not fit"):
            table.nearest_many(np.zeros((1, 5)), [0, 1], [0], [3], 3)
        with pytest.raises(ValueError, match="NaN"):
            table.nearest_many(np.full((1, 4), np.nan), [0, 1], [0], [3], 3)
        damaged = FeatureTable([features], rows=np.full(10, 10, np.uint32))
        with pytest.raises(ValueError, match="out of range"):
            damaged.nearest_many(np.zeros((9, 4)), range(10), [0] * 9, [10] * 9, 3)
