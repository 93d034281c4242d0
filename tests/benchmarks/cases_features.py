"""Cases of the two-stage search: the ball, then the nearest of it by L2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ceilings
import numpy as np
import numpy.typing as npt
import ours
import peers_l2
import peers_paper
import peers_two_stage
from archives import Wanted
from bench import Bench
from exact import Codebook, Neighbourhood
from report import Setting
from timing import Contender

from patchknn.archive.snapshot import Snapshot
from patchknn.hamming import kernels

RADIUS = {"spread": 2, "collapsed": 1}
_WHOLE = ("spread", "collapsed")


def two_stage(bench: Bench) -> None:
    """One by one and as a batch, against re-ranked faiss indexes and the machine's ceilings."""
    (n,) = bench.sizes(1_000_000)
    for codes in _WHOLE:
        for features in ("low-rank", "isotropic"):
            for bits in bench.bits:
                if bits == 48 and features == "isotropic":
                    continue  # the bits make no difference to the second stage
                wanted = Wanted(codes, features, n, bits)
                snapshot = bench.open(wanted)
                book, near = bench.stored(snapshot, wanted)
                pipelines = peers_two_stage.Pipelines(book, near, bench.threads, bench.trial_s)
                searcher = ours.TwoStage(snapshot, book, near, RADIUS[codes], bench.k)
                for mode in ("one", "batch"):
                    case = f"two-stage, {codes}, {features}"
                    setting = Setting(case, n, bits, RADIUS[codes], mode)
                    contenders = _searches(bench, searcher, pipelines, setting)
                    contenders += _ceilings(bench, snapshot, book, near, setting)
                    bench.measure(setting, contenders)


def shards(bench: Bench) -> None:
    """The same rows in one shard and in 1000, after ``archive index``."""
    (n,) = bench.sizes(1_000_000)
    for codes in _WHOLE:
        radius = RADIUS[codes]
        searchers = {}
        for count in (1, 1000 // bench.scale):
            wanted = Wanted(codes, "low-rank", n, 64, count)
            snapshot = bench.open(wanted)
            book, near = bench.stored(snapshot, wanted)
            searchers[count] = ours.TwoStage(snapshot, book, near, radius, bench.k)
        for mode in ("one", "batch"):
            threads = 1 if mode == "one" else bench.threads
            contenders = [
                searcher.find(mode, threads, f"patchknn, {'1 shard' if count == 1 else 'shards'}")
                for count, searcher in searchers.items()
            ]
            bench.measure(Setting(f"shards, {codes}", n, 64, radius, mode), contenders)


def paper(bench: Bench) -> None:
    """scikit-learn's BallTree and SciPy's k-d tree, as the paper had them."""
    (n,) = bench.sizes(100_000)
    for codes in _WHOLE:
        wanted = Wanted(codes, "low-rank", n, 64)
        snapshot = bench.open(wanted)
        book, near = bench.stored(snapshot, wanted)
        searcher = ours.TwoStage(snapshot, book, near, RADIUS[codes], bench.k)
        trees = peers_paper.ball_tree_and_kd_tree(book, near, RADIUS[codes], bench.k)
        for mode in ("one", "batch"):
            contenders = [searcher.find(mode, 1), searcher.answers(mode, 1), trees[mode]]
            bench.measure(Setting(f"paper, {codes}", n, 64, RADIUS[codes], mode), contenders)


def nearest_by_l2(bench: Bench) -> None:
    """Another question, the nearest of all rows by L2: how near does the ball come, how fast?"""
    (n,) = bench.sizes(100_000)
    wanted = Wanted("spread", "low-rank", n, 64)
    snapshot = bench.open(wanted)
    book, near = bench.stored(snapshot, wanted)
    searcher = ours.TwoStage(snapshot, book, near, RADIUS["spread"], bench.k)
    for mode, others in peers_l2.contenders(near, bench.k, bench.threads).items():
        threads = 1 if mode == "one" else bench.threads
        found = searcher.find(mode, threads, "patchknn, two stages")
        mine = replace(found, exact=False, recall=searcher.recall_of_all_rows())
        bench.measure(Setting("L2 over all rows", n, 64, None, mode), [mine, *others])


def levels(bench: Bench) -> None:
    """Two stages with every instruction set that this machine has, and without any."""
    (n,) = bench.sizes(1_000_000)
    for codes in _WHOLE:
        wanted = Wanted(codes, "isotropic", n, 64)
        contenders = []
        for level in kernels.available():
            with kernels.use(level):
                snapshot = bench.open(wanted)
                book, near = bench.stored(snapshot, wanted)
                searcher = ours.TwoStage(snapshot, book, near, RADIUS[codes], bench.k)
                contender = searcher.find("one", 1, f"patchknn {level}")
            contenders.append(replace(contender, run=ours.at_level(level, contender.run)))
        bench.measure(
            Setting(f"kernels, two-stage {codes}", n, 64, RADIUS[codes], "one"), contenders
        )


def _searches(
    bench: Bench, searcher: ours.TwoStage, pipelines: peers_two_stage.Pipelines, setting: Setting
) -> list[Contender]:
    threads = 1 if setting.mode == "one" else bench.threads
    contenders = [searcher.find(setting.mode, threads), searcher.answers(setting.mode, threads)]
    contenders += pipelines.contenders(setting.radius or 0, bench.k, setting.mode)
    if setting.mode == "one" and bench.threads > 1:
        name = f"patchknn, {bench.threads} threads"
        contenders.append(searcher.find("one", bench.threads, name))
    if setting.mode == "batch" and setting.case == "two-stage, collapsed, isotropic":
        contenders.append(pipelines.all_rows(bench.k, "batch"))
    return contenders


def _ceilings(
    bench: Bench, snapshot: Snapshot, book: Codebook, near: Neighbourhood, setting: Setting
) -> list[Contender]:
    sizes, runs = _ball_runs(book, setting.radius or 0)
    if setting.mode == "batch":
        return [_products(float(np.mean(sizes)), near.queries.shape[1], bench)]
    features = snapshot.shards[0].features
    contenders = []
    for threads in sorted({1, bench.threads}):
        by_query = [ceilings.readers(features, threads, bench.cache, own) for own in runs]
        for way in zip(*by_query, strict=True):
            run = _in_turn([one.run for one in way])
            contenders.append(Contender(way[0].method, run, recall=None))
    return contenders


def _ball_runs(book: Codebook, radius: int) -> tuple[list[int], list[ceilings.Runs]]:
    """How many rows each query's ball holds, and in which runs they lie."""
    sizes, runs = [], []
    for query in range(len(book.queries)):
        rows = np.flatnonzero(book.distances(query) <= radius)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        first, last = np.append(0, breaks), np.append(breaks, len(rows))
        some = slice(0, len(first) if len(rows) else 0)
        starts: npt.NDArray[np.int64] = rows[first[some] % max(len(rows), 1)] if len(rows) else rows
        runs.append((starts, starts + (last - first)[some]))
        sizes.append(len(rows))
    return sizes, runs


def _in_turn(reads: list[Callable[[int], object]]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for read in reads[:count]:
            read(1)

    return run


def _products(rows_per_query: float, dim: int, bench: Bench) -> Contender:
    """A float32 matrix product of as many multiplications as the balls of all queries ask for."""
    return Contender(
        "sgemm over the balls", ceilings.products(rows_per_query * dim, bench.threads), recall=None
    )
