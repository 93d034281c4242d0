"""Both stages at once find what a literal search in two steps finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.hamming import kernels, parts
from patchknn.hamming.code_table import CodeArrays, CodeTable, build_parts
from patchknn.hamming.exact import l2_distances
from patchknn.hamming.feature_table import FeatureTable
from patchknn.hamming.packing import words
from patchknn.hamming.two_stage import TwoStage

EVERY = kernels.available()


def make(random, n, n_bytes, dim, n_shards):
    """Codes and features of n rows by segment row, and the two tables over them."""
    centres = random.integers(0, 256, (3, n_bytes), np.uint8)
    flips = np.packbits(random.random((n, 8 * n_bytes)) < 0.1, axis=1)
    codes = centres[random.integers(0, 3, n)] ^ flips
    features = random.normal(size=(n, dim)).astype(np.float16)
    if n_shards == 1:
        order = np.lexsort(codes.T[::-1])
        codes, features = codes[order], features[order]
    columns = words(codes)
    rows = np.lexsort((np.arange(n), *columns.T[::-1])).astype(np.uint32)
    distinct, counts = np.unique(columns, axis=0, return_counts=True)
    bounds = np.append(0, np.cumsum(counts)).astype(np.uint32)
    bits = 8 * n_bytes
    arrays = CodeArrays(bits, distinct, bounds, build_parts(bits, distinct))
    cuts = np.sort(random.integers(0, n + 1, n_shards - 1))
    table = FeatureTable(np.split(features, cuts), rows=None if n_shards == 1 else rows)
    return codes, features, rows, TwoStage(CodeTable(arrays), table)


@pytest.mark.parametrize("name", EVERY)
@given(
    n=st.integers(1, 300),
    n_bytes=st.sampled_from([1, 2, 6, 8, 9]),
    radius=st.integers(0, 12),
    k=st.integers(0, 30),
    n_shards=st.integers(1, 4),
    n_skip=st.sampled_from([0, 1, 5, 200]),
    dim=st.sampled_from([1, 9, 16, 65]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_finds_what_a_literal_search_finds(
    *, name, n, n_bytes, radius, k, n_shards, n_skip, dim, dtype, seed
):
    random = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch, kernels.use(name):
        patch.setattr(parts, "_WORTH_INDEXING", 2)
        codes, features, _, tables = make(random, n, n_bytes, dim, n_shards)
        row = int(random.integers(0, n))
        query = (features[row] + random.normal(0, 0.1, dim)).astype(dtype)
        skip = np.unique(np.append(random.integers(0, n, n_skip), row)) if n_skip else None
        found = tables.search(codes[row], query, radius, k, skip)
    near = np.bitwise_count(codes ^ codes[row]).sum(axis=1) <= radius
    if skip is not None:
        near[skip] = False
    assert found.n_rows == near.sum()
    if near.sum() < k:
        assert found.rows is None
        assert found.distances is None
        return
    ball = np.flatnonzero(near)
    distances = l2_distances(features, query.astype(np.float64))[ball]
    kept = distances <= (np.sort(distances)[k - 1] if k else -1)
    pairs = zip(found.distances.tolist(), found.rows.tolist(), strict=True)
    assert sorted(pairs) == sorted(zip(distances[kept].tolist(), ball[kept].tolist(), strict=True))
    assert (np.diff(found.distances) >= 0).all()


@pytest.mark.parametrize("name", EVERY)
@given(
    n=st.integers(1, 300),
    n_queries=st.integers(0, 70),
    n_bytes=st.sampled_from([1, 6, 8, 9]),
    radius=st.integers(0, 12),
    k=st.integers(0, 30),
    least=st.sampled_from([0, 3, 40]),
    most=st.sampled_from([0, 20, 1 << 40]),
    n_shards=st.integers(1, 3),
    threads=st.integers(1, 3),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_many_queries_find_what_each_finds_alone(
    *, name, n, n_queries, n_bytes, radius, k, least, most, n_shards, threads, dtype, seed
):
    random = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch, kernels.use(name):
        patch.setattr(parts, "_WORTH_INDEXING", 2)
        codes, features, _, tables = make(random, n, n_bytes, 9, n_shards)
        asked = random.integers(0, n, n_queries)
        skips = [np.unique(random.integers(0, n, random.integers(0, 9))) for _ in asked]
        queries = (features[asked] + random.normal(0, 0.1, (n_queries, 9))).astype(dtype)
        several = tables.search_many(
            *(words(codes[asked]), queries, radius, k, skips),
            least=least,
            most=most,
            threads=threads,
        )
        alone = [
            tables.search(codes[row], query, radius, k, skip, least=0)
            for row, query, skip in zip(asked, queries, skips, strict=True)
        ]
    assert several.n_rows.tolist() == [one.n_rows for one in alone]
    assert several.ranked.tolist() == [least <= one.n_rows <= most for one in alone]
    assert len(several.work) == n_queries
    spans = zip(several.offsets[:-1], several.offsets[1:], strict=True)
    for one, ranked, (start, stop) in zip(alone, several.ranked, spans, strict=True):
        found = several.rows[start:stop].tolist()
        assert found == (one.rows.tolist() if ranked else [])
        far = several.distances[start:stop].tolist()
        assert far == (one.distances.tolist() if ranked else [])
    assert several.offsets[-1] == len(several.rows) == len(several.distances)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "numpy"])
def test_ends_that_do_not_ascend_are_refused(name):
    random = np.random.default_rng(1)
    with kernels.use(name):
        codes, features, _, tables = make(random, 50, 6, 9, 1)
        many = kernels.extension().two_stage_many
        shared = (tables._codes.kernel, tables._features.kernel, words(codes[:2]))
        queries = features[:2].astype(np.float64)
        skip = np.arange(3)
        for numbers in ([2, 1], [-1, 0], [0, 4]):
            ends = np.array(numbers, np.int64)
            with pytest.raises(ValueError, match="ascend"):
                many(*shared, queries, 48, 3, 0, 50, ends, skip)
        with pytest.raises(ValueError, match="queries"):
            many(*shared, queries[:1], 48, 3, 0, 50, np.zeros(2, np.int64), skip)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_out_of_range_or_does_not_fit_is_refused(name):
    random = np.random.default_rng(1)
    with kernels.use(name):
        codes, features, _, tables = make(random, 50, 6, 9, 1)
        code = codes[0]
        with pytest.raises(ValueError, match="NaN"):
            tables.search(code, np.full(9, np.nan), 48, 3)
        with pytest.raises(ValueError, match="query"):
            tables.search(code, np.zeros(8), 48, 3)
        arrays = tables._codes.arrays
        for value in (51, 1 << 31, (1 << 32) - 1):
            bounds = arrays.bounds.copy()
            bounds[3] = value
            damaged = CodeArrays(48, arrays.codes, bounds, ())
            table = TwoStage(CodeTable(damaged), FeatureTable([features]))
            with pytest.raises(ValueError, match="out of range"):
                table.search(code, features[0], 48, 3)
        with pytest.raises(ValueError, match="codes of 50 rows"):
            TwoStage(CodeTable(arrays), FeatureTable([features[:49]]))


@pytest.mark.parametrize("name", EVERY)
def test_bounds_that_give_a_position_to_two_codes_are_noticed(name):
    codes = np.arange(0, 512, 2, dtype=np.uint64)[:, None] << np.uint64(48)
    features = np.zeros((256, 9), np.float16)
    bounds = np.arange(257, dtype=np.uint32)
    bounds[11], bounds[12] = 200, 11  # code 10 ends late, code 12 begins early; code 11 is far away
    between = (codes[10] | codes[12]).byteswap().view(np.uint8)[:2]
    with kernels.use(name):
        table = TwoStage(CodeTable(CodeArrays(16, codes, bounds)), FeatureTable([features]))
        with pytest.raises(ValueError, match="out of range"):
            table.search(between, features[0], 1, 1)


@pytest.mark.parametrize("name", EVERY)
def test_numbers_beyond_what_c_holds_are_not_wrapped(name):
    random = np.random.default_rng(2)
    with kernels.use(name):
        codes, features, _, tables = make(random, 50, 6, 9, 1)
        code = codes[0]
        every = tables.search(code, features[0], 48, 3)
        for radius in (1 << 32, (1 << 32) + 1):
            found = tables.search(code, features[0], radius, 3)
            assert (found.n_rows, found.rows.tolist()) == (50, every.rows.tolist())
        assert tables.search(code, features[0], 48, 1 << 62).rows is None
        assert len(tables.search(code, features[0], 48, -1).rows) == 0
        with pytest.raises(ValueError, match="less than 0"):
            tables.search(code, features[0], -1, 3)
