"""What the sanitized build of the kernels is put through; test_sanitized.py runs it.

Each function stresses one type over one instruction set; STRESSES names them all. The kernels are
reached as they are, without the Python that stands before them.
"""

from __future__ import annotations

import sys
import threading
from itertools import product
from types import ModuleType

import numpy as np


def stress_code_table(kernels: ModuleType, generator: np.random.Generator) -> None:
    """Balls, nearest and scans over tables of many widths, then over damaged ones."""
    from patchknn.hamming import parts as parts_module
    from patchknn.hamming.packing import words

    parts_module._WORTH_INDEXING = 2
    for n_bytes in (1, 3, 6, 8, 9, 16, 25, 128):
        for n in (1, 13, 2500):
            centres = generator.integers(0, 256, (3, n_bytes), np.uint8)
            flips = np.packbits(generator.random((n, 8 * n_bytes)) < 0.06, axis=1)
            coded, counts = np.unique(
                words(centres[generator.integers(0, 3, n)] ^ flips), axis=0, return_counts=True
            )
            bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
            parts = parts_module.build_parts(8 * n_bytes, coded)
            queries = np.ascontiguousarray(coded[:9])
            for damage in (0.0, 0.3):
                arrays = [bounds.copy()]
                held = []
                for part in parts:
                    copies = [
                        None if array is None else array.copy()
                        for array in (part.bounds, part.order, part.window)
                    ]
                    arrays += [array for array in copies if array is not None]
                    held.append((part.first_bit, part.width, *copies))
                for array in arrays:
                    places = 1 + np.flatnonzero(generator.random(len(array) - 2) < damage)
                    array[places] = generator.integers(0, 2**32, len(places))
                table = kernels.CodeTable(8 * n_bytes, coded, arrays[0], tuple(held))
                _search(table, queries, 8 * n_bytes, damaged=damage > 0)


def _search(table, queries: np.ndarray, bits: int, *, damaged: bool) -> None:
    for radius in (0, 1, 3, bits // 8, bits):
        for path in (-1, 0, 1, 2):
            # Each value of a part would be looked up, which proves nothing more.
            if path < 1 or radius <= 3:
                for defer in (0, 1):
                    _call(table.ball, queries, radius, path, defer, damaged=damaged)
        _call(table.scan, queries, radius, 1, 10**9, damaged=damaged)
        _call(_in_blocks, table.ball_blocks, queries, radius, -1, 0, 2, damaged=damaged)
        for k in (1, 10, 10**6):
            _call(table.nearest, queries, k, radius, damaged=damaged)
            _call(_in_blocks, table.nearest_blocks, queries, k, radius, 4, damaged=damaged)


def _in_blocks(begin, *arguments) -> None:
    search = begin(*arguments)
    others = [threading.Thread(target=search.work) for _ in range(2)]
    for other in others:
        other.start()
    search.work()
    for other in others:
        other.join()
    search.result()


def _call(function, *arguments, damaged: bool) -> None:
    try:
        function(*arguments)
    except ValueError:
        if not damaged:
            raise


def stress_scan_rows(kernels: ModuleType, generator: np.random.Generator) -> None:
    """Scans of codes of every width at every alignment, up to the last byte that is theirs."""
    for n_bytes in [*range(1, 26), 64, 65, 127, 128]:
        for n in (0, 1, 7, 8, 40):
            start = int(generator.integers(0, 9))
            codes = np.frombuffer(bytearray(generator.bytes(n * n_bytes + start)), np.uint8)[start:]
            queries = generator.integers(0, 256, (2, n_bytes), np.uint8)
            for radius in (0, 4 * n_bytes, 8 * n_bytes):
                kernels.scan_rows(codes, queries, n_bytes, radius)


def stress_feature_table(kernels: ModuleType, generator: np.random.Generator) -> None:
    """One query and many over shards of every alignment, by rows and by sketches, then damaged."""
    for dim in (1, 7, 8, 15, 16, 33, 129, 512):
        for dtype in (np.float16, np.float32):
            held = [generator.normal(size=(n, dim)).astype(dtype) for n in (0, 1, 700, 40, 0)]
            n = sum(map(len, held))
            bytes_held = [b"x" + shard.tobytes() for shard in held]
            shards = [np.frombuffer(data, np.uint8)[1:] for data in bytes_held]
            sketch = (
                generator.normal(size=(n, 32)).astype(np.float16),
                np.zeros(dim),
                generator.normal(size=(31, dim)),
                1.0,
                0.5,
            )
            rows = generator.permutation(n).astype(np.uint32)
            for damaged in (False, True):
                if damaged:
                    rows[generator.integers(0, n, 30)] = generator.integers(n, 2**32, 30)
                for mapping in (None, rows):
                    for given in (None, sketch):
                        half = dtype == np.float16
                        table = kernels.FeatureTable(shards, dim, half, mapping, given)
                        _rank(kernels, table, generator, n, dim, damaged=damaged)


def _rank(kernels, table, generator, n: int, dim: int, *, damaged: bool) -> None:
    starts, stops = np.array([0, 3, 200]), np.array([2, 199, n])
    for k in (0, 1, 10, 600, 10**6):
        for query in (generator.normal(size=dim), np.full(dim, 1e39), np.full(dim, 1e-50)):
            _call(table.nearest, query, starts, stops, k, 1, damaged=damaged)
    many = generator.normal(size=(70, dim))
    many[9] *= 1e30
    batch = kernels.RowBatch(table, many, generator.integers(0, 20, 70), 2)
    offsets, ends = np.arange(71), np.full(70, n)
    _call(batch.search, 0, 70, offsets, ends - 5, ends, damaged=damaged)
    batch.share()
    batch.prepare(0, 70)
    panels = np.zeros((3, 32, dim), np.float32)
    own = np.delete(np.arange(70), 9)
    panels.reshape(-1, dim)[:69] = many[own]
    panels = np.ascontiguousarray(panels.transpose(0, 2, 1))
    lengths = np.linalg.norm(many[own], axis=1)
    mean = np.zeros(-(-dim // 16) * 16, np.float32)
    for slot, start in ((0, 0), (1, 300)):
        stop = start + 300
        _call(batch.match, slot, start, stop, own, panels, lengths, mean, damaged=damaged)
    _call(batch.finish, 0, 70, damaged=damaged)


def stress_two_stage(kernels: ModuleType, generator: np.random.Generator) -> None:
    """Both stages over sound and damaged bounds and rows, with rows to leave out."""
    n, dim = 900, 24
    coded, counts = np.unique(
        generator.integers(0, 3, (n, 1), np.uint64), axis=0, return_counts=True
    )
    features = generator.normal(size=(n, dim)).astype(np.float16)
    skip = np.unique(generator.integers(-5, n + 5, 40))
    for damage in (None, 0, n + 1, 2**32 - 1):
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
        rows = generator.permutation(n).astype(np.uint32)
        if damage is not None:
            bounds[1] = rows[5] = damage
        codes = kernels.CodeTable(64, coded, bounds, ())
        for mapping, dtype in product((None, rows), (np.float16, np.float32, np.float64)):
            table = kernels.FeatureTable([features], dim, 1, mapping, None)
            for radius in (0, 1, 64):
                for left_out in (None, skip):
                    _call(
                        kernels.two_stage,
                        codes,
                        table,
                        coded[0].byteswap().view(np.uint8),
                        generator.normal(size=dim).astype(dtype),
                        radius,
                        10,
                        5,
                        left_out,
                        damaged=damage is not None,
                    )
                several = np.ascontiguousarray(coded[[0, 1, 2, 1, 0, 0, 1, 2]])
                ends = np.array([0, 0, *range(5), len(skip)])
                for least, most in ((0, 1 << 40), (5, 300)):
                    _call(
                        kernels.two_stage_many,
                        codes,
                        table,
                        several,
                        generator.normal(size=(8, dim)).astype(dtype),
                        *(radius, 10, least, most, ends, skip),
                        damaged=damage is not None,
                    )


STRESSES = (
    stress_code_table,
    stress_scan_rows,
    stress_feature_table,
    stress_two_stage,
)


def main() -> None:
    """Run every stress with every instruction set of the build that the first argument names."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("_kernels", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    for level in kernels.available():
        kernels.select(level)
        for stress in STRESSES:
            stress(kernels, np.random.default_rng(0))
    print("done", *kernels.available())  # noqa: T201


if __name__ == "__main__":
    main()
