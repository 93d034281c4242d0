"""What the sanitized build of the kernels is put through; test_sanitized.py runs it.

Each function stresses one type over one instruction set; STRESSES names them all. The kernels are
reached as they are, without the Python that stands before them.
"""

from __future__ import annotations

import sys
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
        for k in (1, 10, 10**6):
            _call(table.nearest, queries, k, radius, damaged=damaged)


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


STRESSES = (stress_code_table, stress_scan_rows)


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
