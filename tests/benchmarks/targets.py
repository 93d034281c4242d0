"""What must be reached, as ratios within one run, and whether it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
    counts: bool = True  # else it is shown beside the targets


@dataclass(frozen=True)
class FactTarget:
    """A figure of ``Log.facts``, times ``factor``, must be at most, or at least, ``bound``."""

    text: str
    fact: str
    bound: float
    unit: str
    factor: float = 1
    at_least: bool = False
    counts: bool = True  # else it is shown beside the targets


@dataclass(frozen=True)
class Verdict:
    """What became of a target; ``reached`` None: it was not measured."""

    text: str
    at_least: bool
    bound: float
    unit: str
    reached: float | None
    note: str = ""
    counts: bool = True

    @property
    def met(self) -> bool:
        """Whether it was measured and reached, or is no target."""
        if not self.counts:
            return True
        if self.reached is None:
            return False
        return self.reached >= self.bound if self.at_least else self.reached <= self.bound

    def __str__(self) -> str:
        wanted = f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"
        if self.reached is None:
            return f"{'not measured':<14}{self.text}: {wanted}"
        word = "beside" if not self.counts else "reached" if self.met else "MISSED"
        return f"{word:<14}{self.text}: {wanted}, reached {self.reached:.3g}{self.note}"


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
            f"ball, spread, r = {radius}, batch, against the best exact faiss binary index{how}",
            *("ball, spread", "batch", faster_than(_BINARY, ours=ours), bound, True),
            *(5 * _MILLION, radius, 64, "×", ours != "patchknn"),
        )
        for radius, bound in ((2, 20), (3, 25), (8, 15))
        # A code stands for a run of rows, which is how the second stage takes them.
        for ours, how in (
            ("patchknn, distinct codes", ""),
            ("patchknn", ", every row listed by NumPy"),
        )
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
            f"two-stage, collapsed, {features}, one by one, against a read of the ball, {threads}",
            *(f"two-stage, collapsed, {features}", "one"),
            share_of(f"plain read, {threads}", ours=ours),
            *(bound, False, _MILLION, 1),
        )
        for features, bound in (("isotropic", 1.15), ("low-rank", 0.35))
        for threads, ours in (("1 thread", "patchknn"), ("2 threads", "patchknn, 2 threads"))
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
            f"paper's BallTree + cKDTree, {codes}, {mode}, end to end",
            *(f"paper, {codes}", mode, faster_than("scikit-learn"), 200, True, 100_000, radius),
        )
        for codes, radius in (("spread", 2), ("collapsed", 1))
        for mode in ("one", "batch")
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
            *(0.18, False, _MILLION, 1, 64, " s"),
        )
        for codes in ("spread", "collapsed")
        for where in ("1 shard", "shards")
        for what in ("--id", "features")
    ),
)


SCALE_TARGETS = (
    FactTarget("1e6 to 1e8 codes, r = 2, one by one: growth", "query, one, growth", 0.4, ""),
    FactTarget("1e6 to 1e8 codes, r = 2, batch: growth", "query, batch, growth", 0.4, ""),
    FactTarget("index at 1e8", "bytes a code, 100000000", 40, " bytes a code"),
    FactTarget("index open at 1e8", "open s, 100000000", 5, " ms", 1e3),
    FactTarget("index open at 1e8, resident", "open bytes, 100000000", 10, " MB", 1e-6),
)

_SCALES = 1.8


def pipeline_targets(
    slides: dict[str, bool], models: list[str], scaling: float
) -> list[FactTarget]:
    """Those of ``pipeline.py``; of ``slides`` those count whose tissue is long enough to read.

    ``scaling`` is how much faster two processes of a plain loop are than one: where the machine
    has no second processor to give, it is not asked of two workers either.
    """
    found = [
        FactTarget(
            f"tile --images none of {slide}, time against OpenSlide reading the same level",
            *(f"tile, {slide}, against reading", 1.15, "×"),
            counts=counts,
        )
        for slide, counts in slides.items()
    ]
    found.append(
        FactTarget(
            "tile --images png, patches/s against read + resize + PNG on the same CPUs",
            *("tile png, against a plain loop", 0.9, "×"),
            at_least=True,
        )
    )
    for model in models:
        name = f"embed, {model}, patches/s against"
        found += [
            FactTarget(
                f"{name} the slower of reading and forward pass",
                *(f"embed, {model}, against min(read, forward)", 0.9, "×"),
                at_least=True,
            ),
            FactTarget(
                f"{name} both in turn on the same CPUs, 1 / (1 / read + 1 / forward)",
                *(f"embed, {model}, against both in turn", 0.9, "×"),
                at_least=True,
                counts=False,
            ),
        ]
    found += [
        FactTarget(
            f"{what} by two workers against one, where two plain processes reach {_SCALES:g}×",
            *(f"{what}, two workers against one", 1.7, "×"),
            at_least=True,
            counts=scaling >= _SCALES,
        )
        for what in ("tile", "reading")
    ]
    found += [
        FactTarget(
            "peak memory, reading and inference, the most tiles against 1000",
            *("memory, pipeline, growth", 1.1, "×"),
        ),
        FactTarget(
            "… the whole command, the writer's buffer included",
            *("memory, command, growth", 1.5, "×"),
            counts=False,
        ),
    ]
    return found


def verdicts(log: Log) -> Iterator[Verdict]:
    """Every target of the search against what was measured."""
    yield from verdicts_of(log, TARGETS)
    yield from scale_verdicts(log)


def verdicts_of(log: Log, targets: Iterable[Target]) -> Iterator[Verdict]:
    """Some targets against what was measured."""
    for target in targets:
        settings = [setting for setting, _ in log.rounds if _fits(setting, target)]
        reached, note = None, ""
        if settings:
            largest = max(settings, key=lambda setting: setting.n)
            reached = target.value(log.found(largest))
            if largest.n != target.n:
                note = f", at n = {largest.n:,} instead of {target.n:,}"
        yield Verdict(
            target.text,
            target.at_least,
            target.bound,
            target.unit,
            reached,
            note,
            target.counts,
        )


def scale_verdicts(log: Log) -> Iterator[Verdict]:
    """Those of ``scale.py``."""
    yield from fact_verdicts(log, SCALE_TARGETS)


def fact_verdicts(log: Log, targets: Iterable[FactTarget]) -> Iterator[Verdict]:
    """What became of targets about figures."""
    for target in targets:
        found = log.facts.get(target.fact)
        reached = None if found is None else found * target.factor
        yield Verdict(
            *(target.text, target.at_least, target.bound, target.unit, reached),
            counts=target.counts,
        )


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
