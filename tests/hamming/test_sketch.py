"""Sketches bound distances from below, and the rows they leave are never missed."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming import kernels
from patchknn.hamming.exact import l2_distances
from patchknn.hamming.feature_table import FeatureTable
from patchknn.hamming.sketch import Projection, Sketch, fit_projection

EVERY = kernels.available()


@pytest.fixture
def rng():
    return np.random.default_rng(20260801)


def low_rank(random, n, dim=256, *, rank=12, noise=0.01, dtype="float16"):
    directions = np.random.default_rng(rank).normal(size=(rank, dim)) / np.sqrt(dim)
    values = random.normal(size=(n, rank)) @ directions * 10
    return (values + noise * values.std() * random.normal(size=(n, dim))).astype(dtype)


def fitted(features):
    projection = fit_projection(features)
    assert projection is not None
    values, slack = projection.bounded_sketch(features)
    return Sketch(projection, values, slack)


@functools.cache
def projection_of_a_sample():
    return fitted(low_rank(np.random.default_rng(3), 400, 128, rank=5, dtype="float32")).projection


def test_a_projection_keeps_low_rank_features_apart(rng):
    features = low_rank(rng, 3000)
    sketch = fitted(features)
    assert sketch.values.shape == (3000, 32)
    assert sketch.values.dtype == np.float16
    assert (sketch.projection.sketch(features[:9]) == sketch.values[:9]).all()
    true = l2_distances(features, features[0].astype(np.float64))
    apart = np.linalg.norm(sketch.values - sketch.values[0].astype(np.float64), axis=1)
    assert np.median(apart[1:] * sketch.projection.scale / true[1:]) > 0.95


@pytest.mark.parametrize("dim", [16, 64, 256])
def test_no_projection_for_what_it_would_not_help(rng, dim):
    assert fit_projection(rng.normal(size=(3000, dim)).astype(np.float16)) is None
    assert fit_projection(np.ones((3000, dim), np.float16)) is None
    assert fit_projection(low_rank(rng, 20, dim)) is None


def test_its_spectral_norm_is_at_most_one(rng):
    projection = fitted(low_rank(rng, 2000, dtype="float32")).projection
    assert 1 - 1e-6 < np.linalg.svd(projection.matrix, compute_uv=False)[0] <= 1


@given(
    scale=st.floats(-30, 12).map(lambda power: 10.0**power),
    shrink=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_bound_holds_for_any_projection_and_any_rows(scale, shrink, seed):
    """Also where the matrix is far from orthonormal and magnitudes strain float16."""
    random = np.random.default_rng(seed)
    dim = int(random.integers(32, 90))
    matrix = random.normal(size=(31, dim)) * 10.0 ** random.uniform(-3, 0, (31, 1))
    matrix *= shrink / (np.linalg.norm(matrix, 2) * (1 + 1e-9))
    unit = scale * 10.0 ** float(random.uniform(-2, 2))
    projection = Projection(random.normal(size=dim) * scale, matrix, unit)
    features = (random.normal(size=(40, dim)) * scale).astype(np.float32)
    features[:9] *= np.float32(1e4)
    values, slack = projection.bounded_sketch(features)
    stored = values.astype(np.float64) * unit
    for query in features[::7].astype(np.float64):
        own, lengths = projection._map(query[None])
        true = l2_distances(features, query)
        bounds = np.linalg.norm(stored - own[0], axis=1) - slack - 1e-5 * lengths[0]
        assert not (bounds > true * (1 + 1e-12)).any()


@pytest.mark.parametrize("name", EVERY)
@given(
    kind=st.sampled_from(["low rank", "isotropic", "duplicates", "huge", "outliers"]),
    n=st.integers(1, 400),
    k=st.integers(1, 40),
    mapped=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_table_with_a_sketch_finds_what_one_without_finds(*, name, kind, n, k, mapped, seed):
    random = np.random.default_rng(seed)
    values = low_rank(random, n + 1, 128, rank=5, dtype="float32")
    if kind == "isotropic":
        values = random.normal(size=values.shape).astype(np.float32)
    elif kind == "duplicates":
        values = values[random.integers(0, min(3, n), n + 1)]
    elif kind == "huge":
        values *= np.float32(1e30)
    elif kind == "outliers":
        values[random.integers(0, n + 1, 5)] *= np.float32(1e9)
    projection = projection_of_a_sample()
    rows = random.permutation(n).astype(np.uint32) if mapped else None
    sketch = Sketch(
        projection, *projection.bounded_sketch(values[slice(n) if rows is None else rows])
    )
    arrays = np.split(values[:n], [n // 3])
    starts, stops = np.array([0, n // 2]), np.array([n // 3, n])
    with kernels.use(name):
        plain = FeatureTable(arrays, rows=rows).nearest(values[n], starts, stops, k)
        found = FeatureTable(arrays, rows=rows, sketch=sketch).nearest(values[n], starts, stops, k)
    assert found[0].tolist() == plain[0].tolist()
    assert found[1].tolist() == plain[1].tolist()


@pytest.mark.parametrize("name", [name for name in EVERY if name != "numpy"])
def test_most_rows_of_low_rank_features_are_left_and_none_is_missed(rng, name):
    features = low_rank(rng, 30_000)
    queries = low_rank(rng, 10)
    sketch = fitted(features)
    with kernels.use(name):
        table = FeatureTable([features], sketch=sketch)
        for query in np.concatenate([features[:5], queries]):
            positions, distances, work = table.nearest(query, [100], [30_000], 10)
            every = l2_distances(features[100:], query)
            assert distances.tolist() == np.sort(every)[:10].tolist()
            assert (every[positions - 100] == distances).all()
            assert work.rows_read + work.rows_skipped == 29_900
            assert work.rows_read < 3000


@pytest.mark.parametrize("name", [name for name in EVERY if name != "numpy"])
def test_a_sketch_that_does_not_pay_is_left_and_tried_again(rng, name):
    features = rng.normal(size=(20_000, 128)).astype(np.float32)
    projection = fitted(low_rank(rng, 1000, 128, dtype="float32")).projection
    sketch = Sketch(projection, *projection.bounded_sketch(features))
    with kernels.use(name):
        table = FeatureTable([features], sketch=sketch)
        for query in features[:30]:
            _, distances, work = table.nearest(query, [0], [20_000], 10)
            assert distances.tolist() == np.sort(l2_distances(features, query))[:10].tolist()
            assert work.rows_read > 10_000
