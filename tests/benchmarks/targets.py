"""What must be reached, as ratios within one run, and whether it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from report import Log, Setting
from timing import Timed, ratio

Rounds = dict[str, Timed]
Value = Callable[[Rounds], float | None]


@dataclass(frozen=True)
class Target:
    """``value`` of what was measured in a setting must be at least, or at most, ``bound``."""

    text: str
    case: str
    mode: str
    value: Value
    bound: float
    at_least: bool
    n: int
    radius: int | None = None
    bits: int = 64
    unit: str = "×"


@dataclass(frozen=True)
class Verdict:
    """What became of a target; ``reached`` None: it was not measured."""

    target: Target
    n: int | None
    reached: float | None

    @property
    def met(self) -> bool:
        """Whether it was measured and reached."""
        if self.reached is None:
            return False
        bound = self.target.bound
        return self.reached >= bound if self.target.at_least else self.reached <= bound

    def __str__(self) -> str:
        target = self.target
        sign = "≥" if target.at_least else "≤"
        wanted = f"{sign} {target.bound:g} {target.unit}"
        if self.reached is None:
            return f"not measured  {target.text}: {wanted}"
        at = "" if self.n == target.n else f", at n = {self.n:,} instead of {target.n:,}"
        word = "reached" if self.met else "MISSED"
        return f"{word:<12}  {target.text}: {wanted}, reached {self.reached:.3g}{at}"


def faster_than(*others: str, ours: str = "patchknn") -> Value:
    """How many times as fast ours is as the best of those whose names begin so."""

    def value(rounds: Rounds) -> float | None:
        best = _best(rounds, others)
        return None if best is None or ours not in rounds else ratio(best, rounds[ours])

    return value


def share_of(*ceilings: str, ours: str = "patchknn") -> Value:
    """Our time as a share of the ceiling's: 1 is as fast as the machine can."""

    def value(rounds: Rounds) -> float | None:
        best = _best(rounds, ceilings)
        return None if best is None or ours not in rounds else ratio(rounds[ours], best)

    return value


def seconds(method: str) -> Value:
    """The median time of one method."""

    def value(rounds: Rounds) -> float | None:
        return median(rounds[method].rounds) / 1e6 if method in rounds else None

    return value


_MILLION = 1_000_000
_BINARY = "faiss Index"
TARGETS = (
    *(
        Target(
            f"ball, spread, r = {radius}, batch, against the best exact faiss binary index",
            *("ball, spread", "batch", faster_than(_BINARY), bound, True, 5 * _MILLION, radius),
        )
        for radius, bound in ((2, 20), (3, 25), (8, 15))
    ),
    Target(
        "10 nearest in Hamming, spread, batch, against IndexBinaryFlat",
        *("nearest, spread", "batch", faster_than("faiss IndexBinaryFlat"), 500, True),
        5 * _MILLION,
    ),
    *(
        Target(
            f"plain scan, {kind}, one query: share of a plain read's speed",
            *(f"scan, {kind}", "one", faster_than("plain read", ours="patchknn, scan")),
            *(0.85, True, 5 * _MILLION, 2),
        )
        for kind in ("spread", "uniform")
    ),
    *(
        Target(
            f"ball, uniform codes, r = {radius}, one by one, against our own plain scan",
            *("ball, uniform", "one", share_of("patchknn, scan", ours="patchknn, distinct codes")),
            *(1.2, False, 5 * _MILLION, radius),
        )
        for radius in (2, 8)
    ),
    *(
        Target(
            f"two-stage, spread, {features}, one by one, against the best faiss pipeline",
            *(f"two-stage, spread, {features}", "one", faster_than(_BINARY), 5, True, _MILLION, 2),
        )
        for features in ("low-rank", "isotropic")
    ),
    *(
        Target(
            f"two-stage, collapsed, {features}, one by one, against one read of the ball",
            f"two-stage, collapsed, {features}",
            *("one", share_of("plain read"), bound, False, _MILLION, 1),
        )
        for features, bound in (("isotropic", 1.15), ("low-rank", 0.35))
    ),
    Target(
        "two-stage, collapsed, isotropic, batch: share of sgemm over the balls' products",
        *("two-stage, collapsed, isotropic", "batch", faster_than("sgemm"), 0.55, True),
        *(_MILLION, 1),
    ),
    Target(
        "two-stage, collapsed, isotropic, batch, against faiss IndexFlatL2 over all rows",
        *("two-stage, collapsed, isotropic", "batch", faster_than("faiss IndexFlatL2")),
        *(6, True, _MILLION, 1),
    ),
    *(
        Target(
            f"paper's BallTree + cKDTree, {codes}, end to end",
            *(f"paper, {codes}", "one", faster_than("scikit-learn"), 200, True, 100_000, radius),
        )
        for codes, radius in (("spread", 2), ("collapsed", 1))
    ),
    *(
        Target(
            f"1000 shards after archive index, {codes}, {mode}, against the single shard",
            *(f"shards, {codes}", mode),
            share_of("patchknn, 1 shard", ours="patchknn, shards"),
            *(1.3, False, _MILLION, radius),
        )
        for codes, radius in (("spread", 2), ("collapsed", 1))
        for mode in ("one", "batch")
    ),
    *(
        Target(
            f"whole process, query {what}, {where}, {codes}, warm",
            *(f"process, {codes}", "process", seconds(f"patchknn query {what}, {where}")),
            *(0.18, False, _MILLION, 1, 64, "s"),
        )
        for codes in ("spread", "collapsed")
        for where in ("1 shard", "shards")
        for what in ("--id", "features")
    ),
)


def verdicts(log: Log) -> Iterator[Verdict]:
    """Every target against what was measured."""
    for target in TARGETS:
        settings = [setting for setting, _ in log.rounds if _fits(setting, target)]
        if not settings:
            yield Verdict(target, None, None)
            continue
        largest = max(settings, key=lambda setting: setting.n)
        yield Verdict(target, largest.n, target.value(log.found(largest)))


def _fits(setting: Setting, target: Target) -> bool:
    return (
        setting.case == target.case
        and setting.mode == target.mode
        and setting.bits == target.bits
        and (target.radius is None or setting.radius == target.radius)
    )


def _best(rounds: Rounds, names: tuple[str, ...]) -> Timed | None:
    some = [
        timed
        for method, timed in rounds.items()
        if method.startswith(names) and timed.contender.exact
    ]
    return min(some, key=lambda timed: timed.us, default=None)
