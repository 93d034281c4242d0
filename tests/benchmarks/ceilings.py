"""What the machine can do at most: a plain read of memory, and a float32 matrix product."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits
from timing import Contender

_TILE = (1000, 4096, 512)  # queries, rows, dimensions: as fast as NumPy's product gets

# Sixteen sums at once: the additions never wait for one another, the loads set the pace.
_READER = """
#include <stdint.h>
uint64_t read_runs(const char *base, const int64_t *starts, const int64_t *stops, int64_t runs)
{
    uint64_t total[16] = {0};
    for (int64_t run = 0; run < runs; run++) {
        const uint64_t *word = (const uint64_t *)(base + starts[run]);
        int64_t words = (stops[run] - starts[run]) / 8, i = 0;
        for (; i + 16 <= words; i += 16)
            for (int lane = 0; lane < 16; lane++)
                total[lane] += word[i + lane];
        for (; i < words; i++)
            total[0] += word[i];
    }
    for (int lane = 1; lane < 16; lane++)
        total[0] += total[lane];
    return total[0];
}
"""

Runs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def readers(
    values: npt.NDArray[Any], threads: int, folder: Path, runs: Runs | None = None
) -> list[Contender]:
    """Ways to read all of an array (or some runs of its rows) once, in so many threads."""
    whole = (np.zeros(1, np.int64), np.full(1, len(values), np.int64))
    starts, stops = whole if runs is None else runs
    pieces = _pieces(starts, stops, threads)
    row_bytes = values.nbytes // len(values)
    ways = {"numpy": _numpy_reader(values)}
    compiled = _compiled(folder)
    if compiled is not None:
        ways["C"] = _c_reader(compiled, values.ctypes.data, row_bytes)
    pool = _pool(threads)

    def run(read: Callable[[Runs], None]) -> Callable[[int], None]:
        def once(count: int) -> None:
            for _ in range(count):
                if threads == 1:
                    read(pieces[0])
                else:
                    list(pool.map(read, pieces))

        return once

    return [
        Contender(
            f"plain read, {threads} thread{'s' if threads > 1 else ''}, {name}",
            run(read),
            recall=None,
        )
        for name, read in ways.items()
    ]


def products(work_per_query: float, threads: int) -> Callable[[int], None]:
    """A function of q: as many float32 multiply-adds as q queries ask for, by ``np.matmul``."""
    rng = np.random.default_rng(0)
    left = rng.standard_normal((_TILE[0], _TILE[2]), np.float32)
    right = rng.standard_normal((_TILE[1], _TILE[2]), np.float32)
    out = np.empty(_TILE[:2], np.float32)

    def run(count: int) -> None:
        rows = round(work_per_query * count / (_TILE[0] * _TILE[2]))  # of the right side
        with threadpool_limits(threads):
            for _ in range(rows // _TILE[1]):
                np.matmul(left, right.T, out=out)
            rest = rows % _TILE[1]
            np.matmul(left, right[:rest].T, out=out[:, :rest])

    return run


def large_array(n_bytes: int = 1 << 30) -> npt.NDArray[np.uint64]:
    """Far more than any cache holds, every page of it present."""
    return np.arange(n_bytes // 8, dtype=np.uint64)


def _pieces(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], threads: int
) -> list[Runs]:
    """The runs cut into as many equal parts as there are threads."""
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    pieces = []
    for number in range(threads):
        low, high = (total * part // threads for part in (number, number + 1))
        first = np.clip(low - before, 0, lengths)
        last = np.clip(high - before, 0, lengths)
        some = np.flatnonzero(last > first)
        pieces.append((starts[some] + first[some], starts[some] + last[some]))
    return pieces


def _numpy_reader(values: npt.NDArray[Any]) -> Callable[[Runs], None]:
    flat = values.reshape(len(values), -1).view(np.uint8)

    def read(runs: Runs) -> None:
        for start, stop in zip(*runs, strict=True):
            block = flat[start:stop].reshape(-1)
            np.bitwise_xor.reduce(block[: len(block) & ~7].view(np.uint64))

    return read


def _c_reader(compiled: ctypes.CDLL, base: int, row_bytes: int) -> Callable[[Runs], None]:
    def read(runs: Runs) -> None:
        starts, stops = (np.ascontiguousarray(bound * row_bytes) for bound in runs)
        compiled.read_runs(
            ctypes.c_void_p(base),
            ctypes.c_void_p(starts.ctypes.data),
            ctypes.c_void_p(stops.ctypes.data),
            ctypes.c_int64(len(starts)),
        )

    return read


@cache
def _compiled(folder: Path) -> ctypes.CDLL | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    name = f"reader-{hashlib.sha256(_READER.encode()).hexdigest()[:12]}"
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    if not library.exists():
        source.write_text(_READER)
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source]
        if subprocess.run(command, check=False).returncode:
            return None
    loaded = ctypes.CDLL(str(library))
    loaded.read_runs.restype = ctypes.c_uint64
    return loaded


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
