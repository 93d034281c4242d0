"""The ball index against NumPy brute force and the paper's BallTree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import BallTree

from patchknn.hamming import ball as ball_module
from patchknn.hamming.ball import BallIndex, Runs
from patchknn.hamming.packing import sort_order, unpack_bits


def _sorted_codes(generator: np.random.Generator, n: int, n_bytes: int, modes: int) -> np.ndarray:
    centres = generator.integers(0, 256, (modes, n_bytes), np.uint8)
    codes = centres[generator.integers(0, modes, n)]
    flips = generator.random((n, 8 * n_bytes)) < 1 / (8 * n_bytes)
    codes = codes ^ np.packbits(flips, axis=1)
    return codes[sort_order(codes)]


def _brute(codes: np.ndarray, query: np.ndarray) -> np.ndarray:
    return (unpack_bits(codes) != unpack_bits(query[None])).sum(axis=1)


@pytest.fixture(params=["chosen", "probe", "scan"])
def way(request, monkeypatch):
    """Both ways of finding a ball, and the one that the index chooses itself."""
    if request.param != "chosen":
        cost = 0 if request.param == "probe" else float("inf")
        monkeypatch.setattr(ball_module, "_LOOKUP_COST", cost)
    if request.param == "scan":
        monkeypatch.setattr(ball_module, "_MAX_LOOKUPS", -1)
    return request.param


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 6, 8, 9, 16, 128])
@pytest.mark.parametrize("radius", [0, 1, 2])
def test_a_ball_is_that_of_brute_force(way, n_bytes, radius):
    generator = np.random.default_rng(n_bytes)
    codes = _sorted_codes(generator, 300, n_bytes, modes=5)
    index = BallIndex.from_sorted(codes)
    foreign = generator.integers(0, 256, n_bytes, np.uint8)
    for query in [codes[0], codes[150], codes[-1], foreign, np.full(n_bytes, 255, np.uint8)]:
        runs = index.ball(query, radius)
        rows, distances = runs.rows()
        expected = _brute(codes, query)
        assert rows.tolist() == np.flatnonzero(expected <= radius).tolist()
        assert distances.tolist() == expected[rows].tolist()
        assert runs.n_rows == len(rows)
        assert (runs.start < runs.stop).all()
        assert (runs.start[1:] >= runs.stop[:-1]).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_radius_and_count_is_that_of_brute_force(data):
    n_bytes = data.draw(st.sampled_from([1, 2, 5, 8, 11]))
    alphabet = st.sampled_from([0, 1, 127, 128, 254, 255])
    rows = st.lists(alphabet, min_size=n_bytes, max_size=n_bytes)
    codes = np.array(data.draw(st.lists(rows, min_size=1, max_size=30)), np.uint8)
    codes = codes[sort_order(codes)]
    query = np.array(data.draw(rows), np.uint8)
    radius = data.draw(st.integers(0, 8 * n_bytes))
    k = data.draw(st.integers(1, 35))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    index = BallIndex.from_sorted(codes)
    expected = _brute(codes, query)

    rows_found, distances = index.ball(query, radius).rows()
    assert rows_found.tolist() == np.flatnonzero(expected <= radius).tolist()
    assert distances.tolist() == expected[rows_found].tolist()
    for kept in (None, mask):
        passing = expected if kept is None else expected[kept]
        counts = index.counts(query, radius, kept)
        assert counts.tolist() == [(passing == r).sum() for r in range(radius + 1)]
        reached = [r for r in range(radius + 1) if (passing <= r).sum() >= k]
        assert index.smallest_radius(query, k, radius, kept) == (reached[0] if reached else None)


def test_a_ball_is_that_of_the_paper_s_ball_tree(way):
    codes = _sorted_codes(np.random.default_rng(0), 400, 6, modes=9)
    tree = BallTree(unpack_bits(codes), metric="hamming")
    index = BallIndex.from_sorted(codes)
    for row in range(0, 400, 40):
        query = unpack_bits(codes[row : row + 1])
        for radius in (0, 1, 2, 3):
            # scikit-learn's distance is a share of the 48 bits.
            expected = tree.query_radius(query, r=(radius + 0.5) / 48)[0]
            rows, _ = index.ball(codes[row], radius).rows()
            assert rows.tolist() == sorted(expected.tolist())


def test_one_row_and_all_rows_equal():
    one = np.array([[7, 9]], np.uint8)
    rows, distances = BallIndex.from_sorted(one).ball(one[0], 0).rows()
    assert (rows.tolist(), distances.tolist()) == ([0], [0])
    equal = np.repeat(one, 5, axis=0)
    index = BallIndex.from_sorted(equal)
    assert (index.n_codes, index.n_rows) == (1, 5)
    assert index.smallest_radius(one[0] ^ 1, 5, 4) == 2
    assert index.smallest_radius(one[0], 6, 16) is None


def test_no_rows_give_an_empty_ball():
    index = BallIndex.from_sorted(np.zeros((0, 6), np.uint8))
    query = np.zeros(6, np.uint8)
    assert index.ball(query, 48).n_rows == 0
    assert index.smallest_radius(query, 1, 48) is None


def test_runs_without_rows_expand_to_none():
    empty = np.zeros(0, np.int64)
    rows, distances = Runs(empty, empty, np.zeros(0, np.int32)).rows()
    assert len(rows) == len(distances) == 0


def test_unsorted_codes_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="not sorted"):
        BallIndex.from_sorted(np.array([[2], [1]], np.uint8))
    index = BallIndex.from_sorted(np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="16 bits"):
        index.ball(np.zeros(3, np.uint8), 1)
    with pytest.raises(ValueError, match="3 rows"):
        index.counts(np.zeros(2, np.uint8), 1, np.ones(2, bool))
