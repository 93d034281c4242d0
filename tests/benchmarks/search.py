"""patchknn's search beside its peers and the machine's ceilings: one run, the same data for all.

    python tests/benchmarks/search.py --quick                 does everything work? (a minute)
    python tests/benchmarks/search.py --json FILE --check     everything, and the targets

Needs ``pip install '.[bench]'``, and about 12 GB each of memory and of disk for the cache.
Everyone's results are checked against brute force before they are timed, and everyone takes
turns, so that what else the machine does weighs on all alike; still, leave it alone meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cases_codes
import cases_features
import cases_process
import scale
from bench import Bench, default_cache
from report import Log, environment, say, table
from targets import verdicts
from timing import Budget


def _scale(bench: Bench) -> None:
    sizes = [n // bench.scale for n in scale.SIZES]
    scale.measure(bench.log, bench.cache, bench.budget, sizes)


CASES: dict[str, Callable[[Bench], None]] = {
    "scan": cases_codes.scan,
    "ball": cases_codes.balls,
    "nearest": cases_codes.nearest,
    "two-stage": cases_features.two_stage,
    "shards": cases_features.shards,
    "paper": cases_features.paper,
    "l2": cases_features.nearest_by_l2,
    "process": cases_process.process,
    "kernels": cases_codes.levels,
    "kernels-two-stage": cases_features.levels,
    "scale": _scale,
}


def main() -> int:
    """Measure what is asked for; 1 where a target is missed under ``--check``."""
    asked = _arguments()
    log = Log()
    asked.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        log,
        asked.cache,
        asked.threads,
        Budget(2, 0.05) if asked.quick else Budget(asked.rounds, asked.seconds),
        scale=500 if asked.quick else 1,
        n_queries=50 if asked.quick else 1000,
        targets_only=asked.targets_only or asked.quick,
        asked_bits=tuple(asked.bits),
    )
    say(environment(asked.threads))
    for case in asked.cases:
        began = time.monotonic()
        CASES[case](bench)
        say(f"  ({case} took {time.monotonic() - began:.0f} s)")
        if asked.json is not None:
            log.write(asked.json)
    say(f"\n{table(log.measurements)}\n\n{environment(asked.threads)}")
    if not asked.check:
        return 0
    results = list(verdicts(log))
    say("\n" + "\n".join(str(verdict) for verdict in results))
    return 0 if all(verdict.met for verdict in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--quick", action="store_true", help="does everything work? few rows")
    parser.add_argument(
        "--targets-only", action="store_true", help="only 64 bits and the largest archives"
    )
    parser.add_argument(
        "--bits", nargs="+", type=int, choices=(64, 48), default=[64, 48], help="lengths of codes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="one object per measurement")
    parser.add_argument("--check", action="store_true", help="show all targets; exit 1 if missed")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=7, help="of which the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="about, per method and round")
    parser.epilog = f"Cases: {', '.join(CASES)}."
    asked = parser.parse_args()
    if asked.quick and asked.check:
        parser.error("--quick is too small to check targets with")
    return asked


if __name__ == "__main__":
    sys.exit(main())
