"""How the index grows: building, opening and asking it at 1e6, 1e7 and 1e8 codes.

    python tests/benchmarks/scale.py --json FILE --check

Codes only (a row has one feature, and no sketch). The archives stay in the cache: about 8 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import archives
import data
import numpy as np
import numpy.typing as npt
from bench import default_cache
from memory import status
from ours import folder_bytes
from report import Log, Setting, environment, say, table
from timing import Budget, Contender, take_turns

from patchknn.archive.rows import Rows
from patchknn.archive.snapshot import open_archive
from patchknn.hamming.packing import words

SIZES = (1_000_000, 10_000_000, 100_000_000)
BITS = 64
RADIUS = 2
_SHARD_ROWS = 12_500_000
_SLIDE_ROWS = 100_000
_N_QUERIES = 1000
_CHECKED = 3
# What unique codes are found by; over several shards a row has 4 bytes besides, its place.
_CODE_ARRAYS = ("codes", "bounds", "part")


def measure(log: Log, cache: Path, budget: Budget, sizes: Sequence[int] = SIZES) -> None:
    """Note times in ``log.measurements`` and the rest in ``log.facts``."""
    queries = words(data.coded_rows("spread", _N_QUERIES, BITS, part="queries").codes)
    for n in sizes:
        path = archive(cache, n)
        build, opened = _in_child("build", path), _in_child("open", path)
        (segment,) = open_archive(path).cover.segments
        index, n_codes = segment.folder, segment.table.n_codes
        _check(segment.table, segment.code_arrays.codes, queries)
        of_codes = sum(
            file.stat().st_size for file in index.iterdir() if file.name.startswith(_CODE_ARRAYS)
        )
        in_all = folder_bytes(index) / n
        log.facts |= {
            f"build s, {n}": build["seconds"],
            f"open s, {n}": opened["seconds"],
            f"open bytes, {n}": opened["resident"],
            f"bytes a code, {n}": of_codes / n_codes,
        }
        say(
            f"\n{n:,} rows, {n_codes:,} distinct codes: built in {build['seconds']:.1f} s with "
            f"{build['anonymous'] / 1e6:,.0f} MB of memory, opened in "
            f"{opened['seconds'] * 1e3:.2f} ms with {opened['resident'] / 1e6:.1f} MB; "
            f"{of_codes / n_codes:.1f} bytes a distinct code, {of_codes / n:.1f} a row, and "
            f"{in_all:.1f} a row with the places and ids of rows"
        )
        for mode, seconds, memory in (
            ("build", build["seconds"], build["anonymous"]),
            ("open", opened["seconds"], opened["resident"]),
        ):
            setting = Setting("scale, spread", n, BITS, None, mode)
            log.note(setting, "patchknn, memory per row", seconds * 1e6, memory / n)
        for mode in ("one", "batch"):
            setting = Setting("scale, spread", n, BITS, RADIUS, mode)
            contender = _asked(segment.table, queries, mode, in_all)
            log.add(setting, take_turns([contender], _N_QUERIES, budget))
    for what in ("build s", "open s"):
        known = [log.facts[f"{what}, {n}"] for n in sizes]
        log.facts[f"{what}, growth"] = growth(sizes, known)
    for mode in ("one", "batch"):
        times = [
            log.found(Setting("scale, spread", n, BITS, RADIUS, mode))["patchknn"].us for n in sizes
        ]
        log.facts[f"query, {mode}, growth"] = growth(sizes, times)
    say("\n" + "\n".join(f"{n}: {v:.2f}" for n, v in log.facts.items() if n.endswith("growth")))


def growth(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The exponent of a power law between the first and the last."""
    if len(sizes) < 2:
        return math.nan
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])


def archive(cache: Path, n: int) -> Path:
    """An archive of n rows without features, not indexed; made where it is not there yet."""
    path = cache / f"v1-scale-spread-{n}-{BITS}"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        archives.write_shards(unfinished, BITS, 1, _parts(n))
        unfinished.rename(path)
    return path


def _parts(n: int) -> Iterator[Rows]:
    for number, first in enumerate(range(0, n, _SHARD_ROWS)):
        rows = min(_SHARD_ROWS, n - first)
        coded = data.coded_rows("spread", rows, BITS, part=f"shard {number}")
        slides = max(1, rows // _SLIDE_ROWS)
        features = np.ones((rows, 1), np.float16)
        yield archives.rows_of(coded, features, slides, first // _SLIDE_ROWS)


def _asked(table: Any, queries: Any, mode: str, size: float) -> Contender:
    threads = 1 if mode == "one" else 2

    def one_by_one(count: int) -> None:
        for query in range(count):
            table.ball(queries[query : query + 1], RADIUS)

    def batch(count: int) -> None:
        table.ball(queries[:count], RADIUS, threads=threads)

    run = one_by_one if mode == "one" else batch
    return Contender("patchknn", run, bytes_per_row=size)


def _check(table: Any, codes: npt.NDArray[np.uint64], queries: npt.NDArray[np.uint64]) -> None:
    for query in queries[:_CHECKED]:
        wanted = np.flatnonzero(np.bitwise_count(codes[:, 0] ^ query[0]) <= RADIUS)
        if not np.array_equal(np.sort(table.ball(query[None], RADIUS).codes), wanted):
            message = "the index gives other codes than a look at all of them"
            raise ValueError(message)


def _in_child(what: str, path: Path) -> dict[str, float]:
    """Measured in a process of its own, whose memory nothing else has touched."""
    command = [sys.executable, __file__, "--child", what, str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _child(what: str, path: Path) -> dict[str, float]:
    return _build(path) if what == "build" else _open(path)


def _build(path: Path) -> dict[str, float]:
    from patchknn.archive.index.update import update_index

    before, peak, done = status("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    update_index(path, rebuild=True)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    whole = status("VmHWM")
    return {"seconds": seconds, "anonymous": peak[0] - before, "resident": whole}


def _open(path: Path) -> dict[str, float]:
    from patchknn.archive.index import segment  # noqa: F401  (its import is not its opening)

    snapshot = open_archive(path)
    before, began = status("VmRSS"), time.perf_counter()
    cover = snapshot.cover
    seconds = time.perf_counter() - began
    if not cover.segments:
        message = f"{path} has no index: {cover.problems}"
        raise RuntimeError(message)
    return {"seconds": seconds, "resident": status("VmRSS") - before}


def main() -> int:
    """Measure; 1 where a target is missed under ``--check``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=lambda text: int(float(text)), nargs="+", default=SIZES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="one object per measurement")
    parser.add_argument("--check", action="store_true", help="show all targets; exit 1 if missed")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "PATH"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        sys.stdout.write(json.dumps(_child(asked.child[0], Path(asked.child[1]))))
        return 0
    from targets import scale_verdicts

    asked.cache.mkdir(parents=True, exist_ok=True)
    log = Log()
    say(environment(2))
    measure(log, asked.cache, Budget(7, 1.0), sorted(asked.sizes))
    say(f"\n{table(log.measurements)}")
    if asked.json is not None:
        log.write(asked.json)
    if not asked.check:
        return 0
    results = list(scale_verdicts(log))
    say("\n" + "\n".join(str(verdict) for verdict in results))
    return 0 if all(verdict.met for verdict in results) else 1


if __name__ == "__main__":
    sys.exit(main())
