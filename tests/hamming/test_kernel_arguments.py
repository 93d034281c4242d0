"""What the kernels are handed without the Python that stands before them."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.hamming import kernels

_N, _DIM, _WIDTH = 300, 8, 32
_COMPILED = kernels.available()[1:]
pytestmark = pytest.mark.skipif(not _COMPILED, reason="there are no kernels")


def _unaligned(values):
    values = np.ascontiguousarray(values)
    return np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(values.dtype)


@pytest.fixture
def features():
    return np.random.default_rng(8).normal(size=(_N, _DIM)).astype(np.float32)


@pytest.fixture(params=_COMPILED)
def module(request):
    with kernels.use(request.param):
        yield kernels.extension()


def test_arrays_of_numbers_must_be_aligned_and_features_need_not(module, features):
    query, one = features[3].astype(np.float64), np.ones(1, np.int64)
    none, sketch = np.empty(0), np.zeros((_N, _WIDTH), np.float16)
    mean, matrix = np.zeros(_DIM), np.zeros((_WIDTH - 1, _DIM))
    rows = np.arange(_N, dtype=np.uint32)

    def table(rows=rows, sketch=sketch, mean=mean, matrix=matrix):
        given = (sketch, mean, matrix, 1.0, 1.0)
        return module.FeatureTable([_unaligned(features)], _DIM, 0, rows, given)

    whole = table(sketch=_unaligned(sketch))
    assert whole.nearest(query, one * 0, one * _N, 1, 1)[0] == (one * 3).tobytes()
    assert whole.nearest(query, _unaligned(none), none, 1, 1)[2:] == (0, 0)
    batch = module.RowBatch(whole, query, one, 1)
    words = np.zeros(1, np.uint64)
    codes = module.CodeTable(64, words, np.array([0, _N], np.uint32), ())
    panels = np.zeros((1, _DIM, 32), np.float32)
    padded, code = np.zeros(16, np.float32), np.zeros(8, np.uint8)

    def two_stage(query=query, skip=one):
        module.two_stage(codes, whole, code, query, 0, 3, 1, skip)

    def match(queries=one * 0, panels=panels, lengths=mean[:1], mean=padded):
        batch.match(0, 0, _N, queries, panels, lengths, mean)

    two_stage()
    match()
    for what, call in {
        "rows": lambda: table(rows=_unaligned(rows)),
        "mean": lambda: table(mean=_unaligned(mean)),
        "matrix": lambda: table(matrix=_unaligned(matrix)),
        "query": lambda: whole.nearest(_unaligned(query), one * 0, one, 1, 1),
        "starts": lambda: whole.nearest(query, _unaligned(one), one, 1, 1),
        "stops": lambda: whole.nearest(query, one, _unaligned(one), 1, 1),
        "queries": lambda: module.RowBatch(whole, _unaligned(query), one, 1),
        "k": lambda: module.RowBatch(whole, query, _unaligned(one), 1),
        "offsets": lambda: batch.search(0, 1, _unaligned(np.arange(2)), one * 0, one),
        "skip": lambda: two_stage(skip=_unaligned(one)),
        "panels": lambda: match(panels=_unaligned(panels)),
        "lengths": lambda: match(lengths=_unaligned(np.ones(1))),
    }.items():
        with pytest.raises(ValueError, match=f"^{what}: it is not aligned$"):
            call()
    for call in (
        lambda: match(queries=_unaligned(one * 0)),
        lambda: match(mean=_unaligned(padded)),
        lambda: two_stage(query=_unaligned(query)),
        lambda: two_stage(query=_unaligned(query.astype(np.float16))),
        lambda: module.distances(features, 0, query, _unaligned(one)),
    ):
        with pytest.raises(ValueError, match="it is not aligned"):
            call()


@pytest.mark.parametrize("k", [_N - 1, _N, _N + 1, 1 << 40, (1 << 63) - 1])
def test_more_than_all_rows_are_all_rows(module, features, k):
    table = module.FeatureTable([features], _DIM, 0, None, None)
    query = np.ascontiguousarray(features[3], np.float64)
    counts, zero = np.array([k], np.int64), np.zeros(1, np.int64)
    panels = np.zeros((1, _DIM, 32), np.float32)
    panels[0, :, 0] = query
    lengths, mean = np.array([np.linalg.norm(query)]), np.zeros(16, np.float32)
    matched = module.RowBatch(table, query, counts, 1)
    matched.match(0, 0, _N, zero, panels, lengths, mean)
    searched = module.RowBatch(table, query, counts, 1)
    searched.search(0, 1, np.arange(2), zero, zero + _N)
    positions, distances, *_ = table.nearest(query, zero, zero + _N, k, 0)
    assert len(np.frombuffer(positions, np.int64)) == min(k, _N)
    for batch in (matched, searched):
        assert batch.finish(0, 1)[1:3] == (positions, distances)


def test_a_code_and_features_have_their_length_and_their_kind(module, features):
    codes = module.CodeTable(64, np.zeros(1, np.uint64), np.array([0, _N], np.uint32), ())
    table = module.FeatureTable([features], _DIM, 0, None, None)
    code, query = np.zeros(8, np.uint8), features[3]

    def two_stage(code=code, query=query):
        return module.two_stage(codes, table, code, query, 0, 3, 1, None)

    for dtype in (np.float16, np.float32, np.float64):
        assert two_stage(query=query.astype(dtype))[0] == _N
    for wrong in (code[:7], np.zeros(9, np.uint8), code.view(np.uint64)):
        with pytest.raises(ValueError, match=r"^code: it is not one of 64 bits$"):
            two_stage(code=wrong)
    for wrong in (query[:7], query.astype(np.int8), np.zeros(9, np.float16)):
        with pytest.raises(ValueError, match=r"^query: .* are not 1 times 8 floats$"):
            two_stage(query=wrong)
