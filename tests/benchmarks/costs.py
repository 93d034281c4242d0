"""What the search over codes costs per word, lookup and entry: the figures in _kernels_*.c.

    python tests/benchmarks/costs.py

Prints, for each instruction set, the constants of ``struct code_costs`` in nanoseconds. `word` and
`memory` come from scans of a table that fits the cache and of one that does not, the others from
least squares over index walks, forced, at several radii over uniform and over clustered codes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from patchknn.hamming import kernels
from patchknn.hamming.code_table import CodeArrays, CodeTable, build_parts

Words = npt.NDArray[np.uint64]

_LARGE, _SMALL, _QUERIES = 5_000_000, 100_000, 200


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    tables = {"uniform": _uniform(rng, _LARGE), "clustered": _clustered(rng, _LARGE)}
    tables = {name: (_arrays(codes), queries) for name, (codes, queries) in tables.items()}
    small, near = _uniform(rng, _SMALL)
    for name in kernels.available()[1:]:
        with kernels.use(name):
            table = CodeTable(_arrays(small))
            word = _nanoseconds(lambda table=table: table.scan(near, 2))
            word /= table.n_codes * _QUERIES
            arrays, queries = tables["uniform"]
            table = CodeTable(arrays)
            memory = _nanoseconds(lambda table=table, one=queries[:1]: table.scan(one, 2))
            memory = memory / table.n_codes - word
            measured = [
                _walk(CodeTable(arrays), far, radius)
                for arrays, far in tables.values()
                for radius in (2, 3, 5, 8, 9)
            ]
        counts = np.array([row[:2] for row in measured])
        times = np.array([row[2] for row in measured])
        # Relative errors count: a walk of one microsecond matters as one of a hundred does.
        fitted = np.linalg.lstsq(counts / times[:, None], np.ones(len(times)), rcond=None)[0]
        print(name, f"word {word:.3f} memory {memory:.3f}", end=" ")  # noqa: T201
        print("lookup {:.0f} entry {:.2f}".format(*fitted))  # noqa: T201


def _uniform(rng: np.random.Generator, n: int) -> tuple[Words, Words]:
    values = rng.integers(0, 2**64 - 1, n + _QUERIES, np.uint64)
    return np.unique(values[:n])[:, None], values[n:, None]


def _clustered(rng: np.random.Generator, n: int) -> tuple[Words, Words]:
    modes = rng.integers(0, 2**64 - 1, 2700, np.uint64)
    values = modes[rng.integers(0, len(modes), n + _QUERIES)]
    rates = rng.uniform(0.02, 0.05, len(values)).astype(np.float32)
    for bit in range(64):
        flipped = rng.random(len(values), np.float32) < rates
        values ^= flipped.astype(np.uint64) << np.uint64(bit)
    return np.unique(values[:n])[:, None], values[n:, None]


def _arrays(codes: Words) -> CodeArrays:
    bounds = np.arange(len(codes) + 1, dtype=np.uint32)
    return CodeArrays(64, codes, bounds, build_parts(64, codes))


def _nanoseconds(search: Callable[[], object]) -> float:
    """Processor time of the fastest of several runs: others may use the machine, too."""
    times = []
    for _ in range(9):
        start = time.process_time_ns()
        search()
        times.append(time.process_time_ns() - start)
    return min(times)


def _walk(table: CodeTable, queries: Words, radius: int) -> tuple[float, float, float]:
    """Lookups, entries and nanoseconds per query."""
    taken = _nanoseconds(lambda: table.ball(queries, radius, path="multi-index")) / _QUERIES
    work = table.ball(queries, radius, path="multi-index").work.mean(axis=0)
    return float(work[1]), float(work[2]), taken


if __name__ == "__main__":
    main()
