"""An archive asked for each of its own rows: time and memory of ``evaluate ARCHIVE``.

    python tests/benchmarks/leave_one_out.py --quick       # does everything work? half a minute
    python tests/benchmarks/leave_one_out.py --json FILE --check

512 float16 features and 48 bits a row, clusters, slides of 100 rows, two slides a patient, and a
query's own patient left out. With and without the search over all rows, each in a process of its
own; beside it what faiss and scikit-learn take for the same neighbours (own patients not left out,
which neither can do), in turns of a few seconds, since the machine may be busy with something else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import data
import numpy as np
import numpy.typing as npt
from archives import rows_of, write_shards
from bench import default_cache
from memory import status
from report import environment, say

from patchknn.archive.index.update import update_index
from patchknn.archive.rows import Rows
from patchknn.archive.snapshot import Snapshot, open_archive

SIZES = (10_000, 30_000, 100_000)
BITS = 48
K = 10
_SLIDE_ROWS = 100
_ROUNDS = 5
_TURN = 1024  # queries of a turn

# What must hold of the largest archive: memory beside its features, and the CPU time of faiss
# against that of the yardstick, which has own patients to leave out.
MOST_MB = 400.0
LEAST_RATIO = 0.7


def archive(cache: Path, n: int) -> Path:
    """An archive of n rows of n / 100 slides, indexed; made where it is not there yet."""
    path = cache / f"v1-leave-one-out-{n}-{BITS}"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        write_shards(unfinished, BITS, data.DIM, [_rows(n)])
        unfinished.rename(path)
    update_index(path)
    return path


def measure(cache: Path, n: int) -> Iterator[dict[str, Any]]:
    """Time and memory of whole runs, then the yardstick's turns against others."""
    path = archive(cache, n)
    for yardstick in (False, True):
        command = [sys.executable, __file__, "--child", str(path), str(int(yardstick))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        yield {"n": n, "yardstick": yardstick, **json.loads(done.stdout)}
    yield {"n": n, **turns(open_archive(path))}


def turns(snapshot: Snapshot) -> dict[str, Any]:
    """Seconds per query of the search over all rows, by whom, in turns; and ratios to ours."""
    from itertools import islice

    from patchknn.evaluation.exhaustive import ExhaustiveSearch
    from patchknn.evaluation.queries import archived_queries
    from patchknn.jobs.cpus import available_cpus
    from patchknn.search.settings import SearchSettings

    queries = list(islice(archived_queries(snapshot), _TURN))
    targets = np.stack([query.feature for query in queries])
    settings = SearchSettings(k=K, exclude_same="patient")
    ours = ExhaustiveSearch(snapshot, settings, threads=available_cpus())
    features = np.concatenate([np.asarray(s.features, np.float32) for s in snapshot.shards])
    single = targets.astype(np.float32)
    runs: dict[str, Callable[[], Any]] = {"patchknn": lambda: ours.search(queries, targets)}
    runs |= _others(features, single)
    for run in runs.values():
        run()
    spent: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(_ROUNDS):
        names = list(runs)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began, before = time.perf_counter(), time.process_time()
            runs[name]()
            spent[name].append((time.perf_counter() - began) / len(queries))
            cpu[name].append((time.process_time() - before) / len(queries))
    result: dict[str, Any] = {}
    for name in runs:
        result[f"{name} us"] = round(1e6 * median(spent[name]), 1)
        result[f"{name} cpu us"] = round(1e6 * median(cpu[name]), 1)
        pairs = zip(cpu[name], cpu["patchknn"], strict=True)
        result[f"{name} / patchknn"] = round(median(a / b for a, b in pairs), 3)
    return result


def _others(features: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> Any:
    """faiss and scikit-learn, where they are installed."""
    runs: dict[str, Callable[[], Any]] = {}
    try:
        import faiss
    except ImportError:
        say("faiss is not installed: pip install '.[bench]'")
    else:
        index = faiss.IndexFlatL2(features.shape[1])
        index.add(features)
        runs["faiss"] = lambda: index.search(targets, K + 1)
    from sklearn.neighbors import NearestNeighbors

    brute = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", n_jobs=-1).fit(features)
    runs["scikit-learn"] = lambda: brute.kneighbors(targets)
    return runs


def _rows(n: int) -> Rows:
    coded = data.coded_rows("spread", n, BITS)
    return rows_of(coded, data.features_of("low-rank", coded), max(2, n // _SLIDE_ROWS))


def _child(path: Path, *, yardstick: bool) -> dict[str, Any]:
    """One whole leave-one-out, in this process."""
    from patchknn.evaluation.evaluate import METHOD, Contestant, evaluate_all
    from patchknn.evaluation.queries import archived_queries
    from patchknn.evaluation.ways import in_this_process
    from patchknn.search.settings import SearchSettings

    snapshot = open_archive(path)
    settings = SearchSettings(k=K, exclude_same="patient")
    before = status("RssAnon")
    began, spent = time.perf_counter(), sum(os.times()[:2])
    ways = in_this_process(snapshot, settings, yardstick=yardstick)
    (report,) = evaluate_all(
        snapshot, archived_queries(snapshot), [Contestant(METHOD, settings, ways)]
    )
    figures = report.figures()
    seconds = time.perf_counter() - began
    return {
        "queries": figures["n"],
        "seconds": round(seconds, 1),
        "cpu seconds": round(sum(os.times()[:2]) - spent, 1),
        "queries/s": round(figures["n"] / seconds, 1),
        # The file's own pages are the system's, to take back as it likes.
        "peak MB": round(status("VmHWM") / 1e6),
        "anonymous MB before": round(before / 1e6),
        "features MB": round(sum(s.features.nbytes for s in snapshot.shards) / 1e6),
        "accuracy": figures["accuracy"],
        "precision_at_k": figures["precision_at_k"],
        "l2_precision_at_k": figures["l2_precision_at_k"],
    }


def _missed(results: list[dict[str, Any]]) -> list[str]:
    """The targets that the largest archive misses, in sentences."""
    largest = max(one["n"] for one in results)
    if largest < SIZES[-1]:
        return [f"not measured: the targets are of {SIZES[-1]} rows"]
    missed = []
    for one in results:
        if one["n"] != largest:
            continue
        if "peak MB" in one and one["peak MB"] - one["features MB"] > MOST_MB:
            missed.append(f"{one['peak MB']} MB at the peak: more than {MOST_MB} and the features")
        if one.get("faiss / patchknn", LEAST_RATIO) < LEAST_RATIO:
            missed.append(f"faiss takes {one['faiss / patchknn']} of the yardstick's CPU time")
    return missed


def main() -> int:
    """Measure; 1 where a target is missed under ``--check``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=lambda text: int(float(text)), nargs="+", default=SIZES)
    parser.add_argument("--quick", action="store_true", help="2000 rows: does everything work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="one object per measurement")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parser.add_argument("--child", nargs=2, metavar=("PATH", "YARDSTICK"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        result = _child(Path(asked.child[0]), yardstick=asked.child[1] == "1")
        sys.stdout.write(json.dumps(result))
        return 0
    asked.cache.mkdir(parents=True, exist_ok=True)
    say(environment(2))
    results = []
    for n in [2000] if asked.quick else sorted(asked.sizes):
        for result in measure(asked.cache, n):
            say(json.dumps(result))
            results.append(result)
    if asked.json is not None:
        asked.json.write_text("".join(f"{json.dumps(one)}\n" for one in results))
    missed = _missed(results)
    if asked.check:
        say("\n".join(missed) or "All targets are met.")
    return 1 if asked.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
