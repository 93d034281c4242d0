"""What it costs to keep an archive: adding, removing, looking, writing, as it grows.

    python tests/benchmarks/archive.py --quick                 does everything work? a few seconds
    python tests/benchmarks/archive.py --json FILE --check     everything, and the targets

Archives of 1e5, 1e6 and 1e7 rows (64 bits, 64 features) in shards of 1e6 rows, and one of 1e7 rows
in 5,000 shards, are made in ``--cache``, 4 GB, and changed there by every run; ``rm -r`` it for the
next. Everything is measured in this process but ``info``, which is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from archives import random_bundle, write_shards
from report import Log, environment, say
from targets import FactTarget, fact_verdicts

from patchknn.archive.choice import Choice
from patchknn.archive.index.update import update_index
from patchknn.archive.remove import remove_rows
from patchknn.archive.rows import Rows, Source
from patchknn.archive.settings import read_settings
from patchknn.archive.shard_arrays import shard_arrays
from patchknn.archive.shard_writer import write_shard
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle
from patchknn.files import fsync_file

DIM, BITS = 64, 64
_ROWS_A_SLIDE = 1000
_ADDED = 10_000
_IN_A_SHARD = 1_000_000
_SMALL_SHARD = 2_000
_IN_A_FULL_SHARD = 3_200_000  # 512 MB, where a writer begins the next


class Size(NamedTuple):
    """An archive of so many rows, in shards of so many."""

    rows: int
    in_a_shard: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.rows:.0e} rows" + (" in small shards" if self.in_a_shard < 50_000 else "")


def targets(sizes: list[Size]) -> list[FactTarget]:
    """What is to be reached."""
    largest = [size.name for size in sizes if size.rows == max(s.rows for s in sizes)]
    return (
        [
            FactTarget(
                f"adding {_ADDED:,} rows to {name}, against the smallest archive", key, 1.5, "×"
            )
            for size in sizes[1:]
            for name, key in [(size.name, f"add, {size.name}, growth")]
        ]
        + [
            target
            for name in largest
            for target in (
                FactTarget(f"removing a slide of {name}", f"remove, {name}", 0.2, " s"),
                FactTarget(f"patchknn archive info of {name}", f"info, {name}", 0.15, " s"),
            )
        ]
        + [
            FactTarget(
                "a plain tofile with fsync, against writing a full shard",
                "write, share",
                1 / 0.7,
                "×",
            ),
            FactTarget("size of the container over its arrays", "overhead", 1.0, " %", factor=100),
        ]
    )


def rows_of(bundle: Bundle, slides: range, per_slide: int = _ROWS_A_SLIDE) -> Rows:
    """Random features of some slides, and their codes."""
    n = len(slides) * per_slide
    generator = np.random.default_rng([slides.start, slides.stop])
    features = generator.standard_normal((n, DIM), np.float32).astype(np.float16)
    within = np.arange(n) % per_slide
    return Rows(
        features,
        bundle.codes(features),
        np.stack([within % 100, within // 100], axis=1).astype(np.int64) * 224,
        (np.arange(n) // per_slide).astype(np.int32),
        (np.arange(n) % 9).astype(np.int32),
        tuple(
            Source(
                name=f"slide{number:06d}.svs",
                path="",
                size=1,
                mtime_ns=0,
                quickhash=number.to_bytes(16, "big"),
                mpp=0.5,
                patient=f"P{number // 2}",
            )
            for number in slides
        ),
        tuple(f"class{number}" for number in range(9)),
    )


def prepared(size: Size, cache: Path, bundle: Bundle) -> Path:
    """An archive of that size, indexed; written where it is not there."""
    path = cache / f"growth-{size.rows}-{size.in_a_shard}"
    if not path.exists():
        unfinished = cache / f"{path.name}.unfinished"
        write_shards(unfinished, BITS, DIM, _parts(size, bundle))
        unfinished.rename(path)
    update_index(path)
    return path


def _parts(size: Size, bundle: Bundle) -> Iterator[Rows]:
    slides = size.in_a_shard // _ROWS_A_SLIDE
    for first in range(0, size.rows // _ROWS_A_SLIDE, slides):
        yield rows_of(bundle, range(first, first + slides))


def growth(log: Log, archives: dict[Size, Path], bundle: Bundle, rounds: int) -> None:
    """Add and remove in turn, so that what else the machine does weighs on all sizes alike."""
    added: dict[Size, list[float]] = {size: [] for size in archives}
    removed: dict[Size, list[float]] = {size: [] for size in archives}
    for _ in range(rounds):
        number = 10_000_000 + secrets.randbelow(1 << 40)
        rows = rows_of(bundle, range(number, number + _ADDED // _ROWS_A_SLIDE))
        for size, path in archives.items():
            added[size].append(_timed(lambda path=path, rows=rows: _add(path, rows)))
            choice = Choice(slides=[rows.sources[0].name])
            removed[size].append(_timed(lambda path=path, one=choice: remove_rows(path, one)))
            update_index(path)
    smallest = next(iter(archives))
    for size in archives:
        ratios = [one / base for one, base in zip(added[size], added[smallest], strict=True)]
        log.facts[f"add, {size.name}"] = median(added[size])
        log.facts[f"add, {size.name}, growth"] = median(ratios)
        log.facts[f"remove, {size.name}"] = median(removed[size])


def looks(log: Log, archives: dict[Size, Path], rounds: int) -> None:
    """``patchknn archive info``, as a process."""
    for size, path in archives.items():
        command = [sys.executable, "-m", "patchknn", "archive", "info", str(path)]
        bare = [sys.executable, "-c", "import typer, numpy"]
        times = []
        for _ in range(rounds):
            run = _timed(lambda c=command: subprocess.run(c, check=True, capture_output=True))
            start = _timed(lambda c=bare: subprocess.run(c, check=True, capture_output=True))
            times.append((run, start))
        log.facts[f"info, {size.name}"] = median(run for run, _ in times)
        log.facts[f"start of Python, typer and NumPy, {size.name}"] = median(s for _, s in times)


def writing(log: Log, path: Path, bundle: Bundle, slides: int, rounds: int) -> None:
    """Bytes a second of a shard against a plain file, in turn."""
    rows = rows_of(bundle, range(slides))
    settings = read_settings(path)
    ratios, speeds, sorting = [], [], []
    nbytes = 0
    for _ in range(rounds):
        in_order = _timed(lambda: shard_arrays(rows, settings))
        for container in ("zarr", "hdf5"):
            written = []
            ours = _timed(
                lambda container=container, written=written: written.append(
                    write_shard(path, settings, rows, container=container, run_id=None)
                )
            )
            description = written[0].description
            sizes = sum(record.size for record in description.files)
            nbytes = sum(place.nbytes for place in description.arrays.values())
            written[0].remove()
            plain = _timed(lambda n=nbytes: _write_plain(path / "plain.bin", n))
            ratios.append(ours / plain)
            speeds.append(nbytes / ours)
            sorting.append(in_order / ours)
            log.facts["overhead"] = max(log.facts.get("overhead", 0), sizes / nbytes - 1)
    name = f"write, {nbytes / 1e6:.0f} MB"
    log.facts["write, share"] = log.facts[f"{name}, share"] = median(ratios)
    log.facts[f"{name}, sorting, part of the time"] = median(sorting)
    log.facts[f"{name}, MB a second"] = median(speeds) / 1e6


def _add(path: Path, rows: Rows) -> None:
    with ArchiveWriter(path, format="hdf5") as writer:
        writer.add(rows)
        writer.publish()


def _write_plain(file: Path, nbytes: int) -> None:
    values = np.ones(nbytes, np.uint8)
    values.tofile(file)
    fsync_file(file)
    file.unlink()


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> int:
    """Measure; 1 where a target is missed under ``--check``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="does everything work? small")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, one object")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median counts")
    parser.add_argument("--cache", type=Path, default=Path("archive-benchmark"))
    asked = parser.parse_args()
    scale = 100 if asked.quick else 1
    sizes = [
        Size(100_000 // min(scale, 10), _IN_A_SHARD // scale // 10),
        Size(1_000_000 // scale, _IN_A_SHARD // scale),
        Size(10_000_000 // scale, _IN_A_SHARD // scale),
        Size(10_000_000 // scale, _SMALL_SHARD),
    ]
    log = Log()
    say(environment(os.cpu_count() or 1))
    asked.cache.mkdir(parents=True, exist_ok=True)
    bundle = random_bundle(asked.cache / "encoder", BITS, DIM)
    archives = {size: prepared(size, asked.cache, bundle) for size in sizes}
    growth(log, archives, bundle, asked.rounds)
    looks(log, archives, asked.rounds)
    for rows in (500_000, _IN_A_FULL_SHARD):  # what is fixed weighs more in the smaller one
        writing(log, archives[sizes[0]], bundle, rows // scale // _ROWS_A_SLIDE, asked.rounds)
    for name, value in log.facts.items():
        say(f"{name}: {value:.4g}")
    if asked.json is not None:
        log.write_facts(asked.json)
    if asked.quick:
        return 0
    results = list(fact_verdicts(log, targets(sizes)))
    say("\n" + "\n".join(str(verdict) for verdict in results))
    return 1 if asked.check and not all(verdict.met for verdict in results) else 0


if __name__ == "__main__":
    sys.exit(main())
