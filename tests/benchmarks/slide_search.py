"""A slide asked of 10,000: time and memory of ``slide search`` on simulated stored codes.

    python tests/benchmarks/slide_search.py --quick       # does everything work? seconds
    python tests/benchmarks/slide_search.py --json FILE --check

No images: each slide is a mosaic of 50 patches (5 % of 1,000), drawn from tissues in proportions
that its class decides, with an offset that its patient has; two slides a patient, 20 classes. What
``slide search`` does for one query once mosaics are kept: distances to all slides but the own
patient's, the five nearest, their best matching patches, votes. Each way in a process of its own,
with a loop over slides in NumPy beside it; and how long one mosaic of 1,000 patches takes to make.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from bench import default_cache
from memory import status
from report import environment, say
from threadpoolctl import threadpool_limits

from patchknn.archive.index.names import mosaics_folder
from patchknn.archive.mosaic_files import open_mosaics, write_mosaics
from patchknn.archive.mosaics import Mosaic, Mosaics
from patchknn.archive.settings import ArchiveSettings
from patchknn.hamming.packing import pack_bits
from patchknn.jobs.cpus import available_cpus
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings, choose_mosaic
from patchknn.wholeslide.mosaics.slide_search import SlideSearcher, SlideSearchSettings

SLIDES, PATCHES, DIM, BITS = 10_000, 1000, 512, 48
_CLASSES, _TISSUES, _EACH = 20, 40, 2
_MOSAIC = 50
_NOISE = 16_384
_KEY = "0" * 64

# What must hold of 10,000 slides.
MOST_SECONDS = {"hamming": 0.5, "l2": 5.0}
MOST_MB = 300.0  # beside the files


STORED = ArchiveSettings("a", "f", BITS, DIM, "float16", 224, 0.5, "float32")


def stored(cache: Path, n: int) -> Path:
    """A folder with the mosaics of n slides, as an archive keeps them; made where it is missing."""
    path = cache / f"v1-slide-search-{n}-{BITS}"
    if not (mosaics_folder(path) / _KEY).exists():
        with threadpool_limits(1):
            write_mosaics(path, _KEY, STORED, MosaicSettings()._asdict(), simulated(n))
    return path


def label_of(number: int) -> str:
    """The class of slide ``number``: that of its patient."""
    return f"class{number // _EACH % _CLASSES:02}"


def simulated(n: int, *, seed: int = 0) -> Iterator[Mosaic]:
    """Mosaics of n slides of n / 2 patients."""
    rng = np.random.default_rng(seed)
    tissues = rng.normal(size=(_TISSUES, DIM)).astype(np.float32)
    mixtures = rng.dirichlet(np.full(_TISSUES, 0.3), _CLASSES)
    planes = rng.normal(size=(DIM, BITS)).astype(np.float32)
    noise = rng.standard_normal((_NOISE, DIM), np.float32)  # as much for each slide took minutes
    for number in range(n):
        patient = number // _EACH
        drawn = rng.choice(_TISSUES, _MOSAIC, p=mixtures[patient % _CLASSES])
        own = noise[rng.integers(0, _NOISE, _MOSAIC)] + noise[patient % _NOISE][::-1]
        features = (tissues[drawn] + own).astype(np.float16)
        yield Mosaic(
            name=f"slide{number:06}.svs",
            patient=f"P{patient:06}",
            content=number.to_bytes(16, "big"),
            patches=PATCHES,
            features=features,
            codes=pack_bits(features.astype(np.float32) @ planes > 0),
            coords=rng.integers(0, 1 << 16, (_MOSAIC, 2)),
            fingerprint=bytes(32),
        )


def _child(by: Literal["hamming", "l2"], path: Path, queries: int) -> dict[str, Any]:
    """Some slides ask all others, in this process."""
    before = status("RssAnon")
    began = time.perf_counter()
    mosaics = open_mosaics(mosaics_folder(path) / _KEY, path, STORED)
    n = mosaics.n_slides
    labels = [label_of(number) for number in range(n)]
    searcher = SlideSearcher(mosaics, labels, SlideSearchSettings(by=by), available_cpus())
    opened = time.perf_counter() - began
    asking = np.random.default_rng(1).choice(n, min(queries, n), replace=False).tolist()
    took, cpu, own = [], [], 0
    right = dict.fromkeys((1, 3, 5), 0)
    most = 0
    for number in asking:
        began, spent = time.perf_counter(), time.process_time()
        answer = searcher.search(mosaics.mosaic(number), labels[number])
        took.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
        most = max(most, status("RssAnon"))
        own += sum(one.patient == answer.patient for one in answer.neighbours)
        for vote in answer.majorities:
            right[vote.k] += vote.prediction == labels[number]
    peak = status("VmHWM")
    with threadpool_limits(1):
        loop = _loop(by, mosaics, asking[0])
    return {
        "by": by,
        "slides": n,
        "queries": len(asking),
        "ms per query": round(1e3 * median(took), 1),
        "cpu ms per query": round(1e3 * median(cpu), 1),
        "ms worst": round(1e3 * max(took), 1),
        "ms to open": round(1e3 * opened, 1),
        "ms loop in NumPy": round(1e3 * loop, 1),
        # Pages of files are the system's, to take back as it likes.
        "peak MB": round(peak / 1e6),
        "anonymous MB": round((most - before) / 1e6),
        "MB of codes and features": round((mosaics.codes.nbytes + mosaics.features.nbytes) / 1e6),
        "own patient": own,
        **{f"mMV@{k}": round(count / len(asking), 3) for k, count in right.items()},
        "chance": round(1 / _CLASSES, 3),
    }


def _loop(by: str, mosaics: Mosaics, query: int) -> float:
    """Seconds of the same distances slide by slide."""
    own = mosaics.mosaic(query)
    wanted = own.features.astype(np.float32)
    began = time.perf_counter()
    for slide in range(mosaics.n_slides):
        entries = mosaics.entries(slide)
        if by == "hamming":
            differ = own.codes[:, None] ^ mosaics.codes[entries][None]
            np.median(np.bitwise_count(differ).sum(axis=2).min(axis=1))
        else:
            block = mosaics.features[entries].astype(np.float32)
            lengths = (wanted**2).sum(axis=1)[:, None] + (block**2).sum(axis=1)
            np.sqrt(np.maximum(lengths - 2 * wanted @ block.T, 0)).min(axis=1).mean()
    return time.perf_counter() - began


def making() -> dict[str, Any]:
    """How long the mosaic of one slide takes to be chosen."""
    rng = np.random.default_rng(0)
    tissues = rng.normal(size=(12, DIM)) * 2
    took = []
    for _ in range(6):
        features = (tissues[rng.integers(0, 12, PATCHES)] + rng.normal(size=(PATCHES, DIM))).astype(
            np.float16
        )
        places = np.arange(PATCHES)
        coords = np.stack([places % 32, places // 32], axis=1) * 224
        began = time.process_time()
        with threadpool_limits(1):
            choose_mosaic(features, coords, MosaicSettings())
        took.append(time.process_time() - began)
    return {"patches": PATCHES, "cpu ms per mosaic": round(1e3 * median(took), 1)}


def main() -> int:
    """Measure; 1 where a target is missed under ``--check``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=lambda text: int(float(text)), default=SLIDES)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="300 slides: does everything work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="one object per measurement")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parser.add_argument("--child", nargs=2, metavar=("BY", "PATH"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    n = 300 if asked.quick else asked.slides
    if asked.child is not None:
        by, path = asked.child
        sys.stdout.write(json.dumps(_child(by, Path(path), asked.queries)))
        return 0
    say(environment(2))
    path = stored(asked.cache, n)
    results = [making()]
    for by in ("hamming", "l2"):
        command = [sys.executable, __file__, "--child", by, str(path)]
        command += ["--queries", str(asked.queries)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(done.stdout))
    for result in results:
        say(json.dumps(result))
    if asked.json is not None:
        asked.json.write_text("".join(f"{json.dumps(one)}\n" for one in results))
    missed = _missed(results[1:])
    if asked.check:
        say("\n".join(missed) or "All targets are met.")
    return 1 if asked.check and missed else 0


def _missed(results: list[dict[str, Any]]) -> list[str]:
    """The targets that are missed, in sentences."""
    if results[0]["slides"] < SLIDES:
        return [f"not measured: the targets are of {SLIDES} slides"]
    missed = []
    for one in results:
        by = one["by"]
        if one["ms per query"] > 1e3 * MOST_SECONDS[by]:
            missed.append(f"{by}: {one['ms per query']} ms a query, more than {MOST_SECONDS[by]} s")
        if one["anonymous MB"] > MOST_MB:
            missed.append(f"{by}: {one['anonymous MB']} MB beside the files")
        if one["own patient"]:
            missed.append(f"{by}: {one['own patient']} slides of the own patient")
        if one["mMV@5"] < 8 * one["chance"]:
            missed.append(f"{by}: right in {one['mMV@5']} of the queries alone")
    return missed


if __name__ == "__main__":
    sys.exit(main())
