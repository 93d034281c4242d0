"""Cases on codes alone: balls, nearest codes, the plain scan, and the kernels' levels."""

from __future__ import annotations

from dataclasses import replace

import ceilings
import ours
import peers_ball
import peers_nearest
from bench import Bench
from report import Setting
from timing import Contender

from patchknn.hamming import kernels

_RADII = {"spread": (2, 3, 8), "collapsed": (1,), "uniform": (2, 8)}


def balls(bench: Bench) -> None:
    """Every row within a radius, against faiss's exact indexes."""
    for kind, radii in _RADII.items():
        for bits in bench.bits if kind != "uniform" else (64,):
            for n in bench.sizes(5_000_000, 1_000_000, 100_000):
                book = bench.book(kind, n, bits)
                table = ours.Table(book, bench.threads)
                others = peers_ball.Balls(book, bench.threads, bench.trial_s)
                for radius in radii:
                    for mode in ("batch", "one"):
                        setting = Setting(f"ball, {kind}", n, bits, radius, mode)
                        bench.measure(setting, _balls(table, others, radius, mode))


def nearest(bench: Bench) -> None:
    """The 10 nearest rows in Hamming, against exact and approximate indexes."""
    for bits in bench.bits:
        for n in bench.sizes(5_000_000, 1_000_000, 100_000):
            book = bench.book("spread", n, bits)
            table = ours.Table(book, bench.threads)
            others = peers_nearest.contenders(book, bench.k, bench.threads, bench.trial_s)
            for mode, some in others.items():
                setting = Setting("nearest, spread", n, bits, None, mode)
                bench.measure(setting, [table.nearest(bench.k, mode), *some])


def scan(bench: Bench) -> None:
    """One query against all codes, against a plain read of the same memory."""
    for kind in ("spread", "uniform"):
        for n in bench.sizes(5_000_000, 1_000_000):
            book = bench.book(kind, n, 64)
            table = ours.Table(book, bench.threads)
            contenders = [
                table.ball(2, "one", path="scan", rows=False, name="patchknn, scan"),
                *ceilings.readers(table.arrays.codes, 1, bench.cache),
            ]
            bench.measure(Setting(f"scan, {kind}", n, 64, 2, "one"), contenders)


def levels(bench: Bench) -> None:
    """The same with every instruction set that this machine has, and without any."""
    book = bench.book("spread", next(bench.sizes(5_000_000)), 64)
    for path, radius, mode in (("scan", 2, "one"), (None, 2, "batch"), (None, 8, "batch")):
        contenders = []
        for level in kernels.available():
            with kernels.use(level):
                table = ours.Table(book, bench.threads)
                name = f"patchknn {level}"
                contender = table.ball(radius, mode, path=path, rows=False, name=name)
            contenders.append(replace(contender, run=ours.at_level(level, contender.run)))
        case = "kernels, scan" if path else "kernels, ball"
        bench.measure(Setting(case, len(book.codes), 64, radius, mode), contenders)


def _balls(table: ours.Table, others: peers_ball.Balls, radius: int, mode: str) -> list[Contender]:
    contenders = [
        table.ball(radius, mode),
        table.ball(radius, mode, rows=False),
        *others.contenders(radius, mode),
    ]
    if radius > 1:
        contenders.append(table.ball(radius, mode, path="scan", name="patchknn, scan"))
    return contenders
