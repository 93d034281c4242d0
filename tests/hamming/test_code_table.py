"""Balls and nearest codes, by every kernel and path, against counting bits one by one."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.hamming import kernels
from patchknn.hamming import parts as parts_module
from patchknn.hamming.code_table import PATHS, CodeArrays, CodeTable, build_parts
from patchknn.hamming.packing import unpack_bits, words

KERNELS = kernels.available()


@pytest.fixture(autouse=True)
def _index_even_small_tables(monkeypatch):
    monkeypatch.setattr(parts_module, "_WORTH_INDEXING", 2)


def _table(codes: np.ndarray) -> tuple[CodeArrays, np.ndarray, np.ndarray]:
    """The arrays over codes (n, K/8) with duplicates, the distinct codes and how many of each."""
    distinct, counts = np.unique(codes, axis=0, return_counts=True)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
    bits, coded = 8 * codes.shape[1], words(distinct)
    return CodeArrays(bits, coded, bounds, build_parts(bits, coded)), distinct, counts


def _away(distinct: np.ndarray, query: np.ndarray) -> np.ndarray:
    return (unpack_bits(distinct) != unpack_bits(query[None])).sum(axis=1)


def _check(hits, query: int, away: np.ndarray, radius: int) -> None:
    piece = slice(hits.offsets[query], hits.offsets[query + 1])
    order = np.argsort(hits.codes[piece])
    expected = np.flatnonzero(away <= radius)
    assert hits.codes[piece][order].tolist() == expected.tolist()
    assert hits.distances[piece][order].tolist() == away[expected].tolist()


def _check_nearest(found, query: int, away, counts, wanted: tuple[int, int]) -> None:
    (hits, radii), (k, max_radius) = found, wanted
    reached = [r for r in range(max_radius + 1) if counts[away <= r].sum() >= k]
    assert radii[query] == (reached[0] if reached else -1)
    _check(hits, query, away, reached[0] if reached else max_radius)


def _clustered(generator: np.random.Generator, n: int, n_bytes: int, flips: float) -> np.ndarray:
    centres = generator.integers(0, 256, (4, n_bytes), np.uint8)
    flipped = generator.random((n, 8 * n_bytes)) < flips
    return centres[generator.integers(0, 4, n)] ^ np.packbits(flipped, axis=1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_kernel_and_path_agrees_with_brute_force(data):
    n_bytes = data.draw(st.sampled_from([1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 16, 17, 24, 40, 64, 128]))
    bits = 8 * n_bytes
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n = data.draw(st.sampled_from([1, 2, 9, 40, 300]))
    codes = _clustered(
        generator, n, n_bytes, data.draw(st.sampled_from([0, 0.5 / bits, 0.05, 0.5]))
    )
    arrays, distinct, counts = _table(codes)
    queries = np.concatenate(
        [codes[:2], codes[-1:] ^ np.uint8(1), generator.integers(0, 256, (2, n_bytes), np.uint8)]
    )
    away = [_away(distinct, query) for query in queries]
    radius = data.draw(st.integers(0, 4) | st.integers(0, bits))
    # To look up every value of a wide part is correct, but no use of a test's time.
    wide = max((part.width for part in arrays.parts), default=0) > 10
    path = data.draw(st.sampled_from([None, "scan"] if wide and radius > 8 else [None, *PATHS]))
    k = data.draw(st.sampled_from([1, 2, 7, n, n + 1]))
    threads = data.draw(st.sampled_from([1, 2]))
    for name in KERNELS:
        with kernels.use(name):
            table = CodeTable(arrays)
            hits = table.ball(words(queries), radius, path=path, threads=threads)
            nearest = table.nearest(words(queries), k, radius, threads=threads)
        for query in range(len(queries)):
            _check(hits, query, away[query], radius)
            _check_nearest(nearest, query, away[query], counts, (k, radius))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n_bytes", [1, 6, 8, 16, 25, 128])
def test_all_radii_over_codes_that_are_all_equal_or_one(name, n_bytes):
    code = np.arange(n_bytes, dtype=np.uint8)[None]
    for repeats in (1, 50):
        arrays, _, _ = _table(np.repeat(code, repeats, axis=0))
        with kernels.use(name):
            table = CodeTable(arrays)
        assert (table.n_codes, table.n_positions) == (1, repeats)
        query = words(code ^ np.uint8(255))
        for radius in (0, 1, 8 * n_bytes - 1, 8 * n_bytes):
            expected = [0] if radius == 8 * n_bytes else []
            for path in (None, *PATHS):
                assert table.ball(query, radius, path=path).codes.tolist() == expected
        hits, radii = table.nearest(words(code), repeats, 8 * n_bytes)
        assert (radii.tolist(), hits.codes.tolist()) == ([0], [0])
        assert table.nearest(words(code), repeats + 1, 8 * n_bytes)[1].tolist() == [-1]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n_bytes", [6, 8, 16])
def test_a_large_table_agrees_on_every_path_with_any_number_of_threads(name, n_bytes):
    generator = np.random.default_rng(n_bytes)
    codes = np.concatenate(
        [
            _clustered(generator, 40_000, n_bytes, 0.04),
            generator.integers(0, 256, (20_000, n_bytes), np.uint8),
        ]
    )
    arrays, distinct, counts = _table(codes)
    queries = codes[[0, 17, 39_000, 45_000, 59_999]] ^ np.uint8(2)
    away = [_away(distinct, query) for query in queries]
    with kernels.use(name):
        table = CodeTable(arrays)
        for radius in (0, 2, 5, 9):
            for path in (None, *PATHS):
                if path == "probe" and radius > 5:
                    continue
                for threads in (1, 3):
                    hits = table.ball(words(queries), radius, path=path, threads=threads)
                    for query in range(len(queries)):
                        _check(hits, query, away[query], radius)
                    forced = {path: number for number, path in enumerate(PATHS)}.get(path)
                    assert forced is None or (hits.work[:, 0] == forced).all()
        for k in (1, 10, 3000, 70_000):
            found = table.nearest(words(queries), k, 12, threads=2)
            for query in range(len(queries)):
                _check_nearest(found, query, away[query], counts, (k, 12))


@pytest.mark.parametrize("name", KERNELS)
def test_one_query_over_several_ranges_of_codes(name, monkeypatch):
    monkeypatch.setattr("patchknn.hamming.code_table._WORTH_SHARING", 100)
    codes = np.random.default_rng(0).integers(0, 256, (3000, 4), np.uint8)
    arrays, distinct, _ = _table(codes)
    with kernels.use(name):
        hits = CodeTable(arrays).ball(words(codes[:3]), 14, threads=2)
    assert (hits.work[:, 0] == 0).all()
    for query in range(3):
        _check(hits, query, _away(distinct, codes[query]), 14)


@pytest.mark.parametrize("name", KERNELS)
def test_no_queries_give_no_hits(name):
    arrays, _, _ = _table(np.arange(90, dtype=np.uint8).reshape(30, 3))
    none = np.zeros((0, 1), np.uint64)
    with kernels.use(name):
        table = CodeTable(arrays)
        for threads in (1, 2):
            for hits in (
                table.ball(none, 2, threads=threads),
                table.scan(none, 2, threads=threads),
                table.nearest(none, 1, 2, threads=threads)[0],
            ):
                assert hits.offsets.tolist() == [0]
                assert len(hits.codes) == len(hits.distances) == len(hits.work) == 0


@pytest.mark.parametrize("name", KERNELS)
def test_no_codes_give_no_hits(name):
    empty = np.zeros((0, 1), np.uint64)
    with kernels.use(name):
        table = CodeTable(CodeArrays(64, empty, np.zeros(1, np.uint32), build_parts(64, empty)))
        query = np.zeros((1, 1), np.uint64)
        assert len(table.ball(query, 64).codes) == 0
        assert table.nearest(query, 1, 64)[1].tolist() == [-1]


@pytest.mark.parametrize("name", KERNELS)
def test_what_does_not_fit_is_refused(name):
    codes = np.random.default_rng(1).integers(0, 256, (50, 8), np.uint8)
    arrays, _, _ = _table(codes)
    late = arrays.parts[1]._replace(width=40)
    short = arrays.parts[1]._replace(order=arrays.parts[1].order[:-1])
    ends = arrays.parts[0]._replace(bounds=arrays.parts[0].bounds + np.uint32(1))
    with kernels.use(name):
        table = CodeTable(arrays)
        for queries in (np.zeros((1, 2), np.uint64), np.zeros((1, 1), np.int64)):
            with pytest.raises(ValueError, match="64 bits"):
                table.ball(queries, 1)
        query = words(codes[:1])
        for bad in (lambda: table.ball(query, -1), lambda: table.nearest(query, 0, 3)):
            with pytest.raises(ValueError, match=r"less than|cannot be"):
                bad()
        with pytest.raises(ValueError, match="do not fit bounds"):
            CodeTable(arrays._replace(bits=72))
        for part in (late, short, ends):
            parts = tuple(part if p.first_bit == part.first_bit else p for p in arrays.parts)
            with pytest.raises(ValueError, match=r"part|order"):
                CodeTable(arrays._replace(parts=parts))


def test_no_table_of_the_kernels_is_without_its_arrays():
    extension = kernels.extension()
    if extension is None:
        pytest.skip("NumPy serves")
    with pytest.raises(TypeError):
        extension.CodeTable.__new__(extension.CodeTable)


def _notices(search) -> bool:
    try:
        search()
    except ValueError as error:
        return "out of range" in str(error)
    return False


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n_bytes", [8, 16])
def test_numbers_out_of_range_are_noticed_wherever_they_are_met(name, n_bytes):
    generator = np.random.default_rng(5)
    codes = _clustered(generator, 3000, n_bytes, 0.05)
    arrays, _, _ = _table(codes)
    queries = words(codes[:40])
    noticed = 0
    for number in range(1 + 3 * len(arrays.parts)):
        damaged = arrays._replace(
            bounds=arrays.bounds.copy(),
            parts=tuple(
                part._replace(
                    bounds=part.bounds.copy(),
                    order=None if part.order is None else part.order.copy(),
                    window=None if part.window is None else part.window.copy(),
                )
                for part in arrays.parts
            ),
        )
        fields = [damaged.bounds]
        for part in damaged.parts:
            fields += [part.bounds, part.order, part.window]
        array = fields[number]
        if array is None:
            continue
        # The ends are what a table is checked for when it is made.
        places = 1 + generator.choice(len(array) - 2, (len(array) - 2) // 2, replace=False)
        array[places] = generator.integers(0, 2**32, len(places), np.uint32)
        with kernels.use(name):
            table = CodeTable(damaged)
            noticed += _notices(partial(table.ball, queries, 2, path="multi-index"))
            noticed += _notices(partial(table.ball, queries, 2, path="probe"))
            noticed += _notices(partial(table.nearest, queries, 10, 8 * n_bytes))
    # Not each of them: a path that never reads a number cannot notice it.
    assert noticed >= len(arrays.parts)


@pytest.mark.parametrize("name", KERNELS)
def test_uniform_codes_are_scanned_and_clustered_ones_looked_up(name):
    generator = np.random.default_rng(6)
    uniform, _, _ = _table(generator.integers(0, 256, (200_000, 8), np.uint8))
    clustered, _, _ = _table(_clustered(generator, 200_000, 8, 0.2))
    with kernels.use(name):
        query = generator.integers(0, 256, (1, 8), np.uint8)
        assert CodeTable(uniform).ball(words(query), 24).work[0, 0] == 0
        assert CodeTable(clustered).ball(clustered.codes[:1], 2).work[0, 0] != 0


@pytest.mark.parametrize("name", [name for name in kernels.available() if name != "numpy"])
def test_a_search_in_blocks_gives_what_the_table_gives(name):
    random = np.random.default_rng(5)
    with kernels.use(name):
        codes = np.unique(random.integers(0, 1 << 14, 5000).astype(np.uint64) << np.uint64(40))
        arrays = CodeArrays(24, codes[:, None], np.arange(len(codes) + 1, dtype=np.uint32))
        table = CodeTable(arrays).kernel
        queries = np.ascontiguousarray(codes[:101, None])
        for size in (1, 7, 100, 1000):
            ball = table.ball_blocks(queries, 2, -1, 0, size)
            nearest = table.nearest_blocks(queries, 3, 24, size)
            for search in (ball, nearest):
                with pytest.raises(RuntimeError, match="not ended"):
                    search.result()
                search.work()
                search.work()
            # The work says how many codes were scanned, which hangs on how many queries share it.
            assert ball.result()[:3] == table.ball(queries, 2, -1, 0)[:3]
            assert nearest.result()[:3] == table.nearest(queries, 3, 24)[:3]
        assert table.ball_blocks(queries[:0], 2, -1, 0, 5).result()[1] == b""
        with pytest.raises(ValueError, match="less than 1"):
            table.ball_blocks(queries, 2, -1, 0, 0)
        with pytest.raises(TypeError):
            table.ball_blocks()
        with pytest.raises(TypeError, match="cannot create"):
            type(ball)()
