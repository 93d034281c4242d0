"""Rounds in which everyone takes turns, so that what else the machine does weighs on all alike."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

# Threads of OpenMP and OpenBLAS spin for a while after their work is done.
_REST_S = 0.03
_HOPELESS = 3


@dataclass(frozen=True)
class Contender:
    """One method: ``run(q)`` answers the first q queries, of which it needs ``at_least`` so many.

    Batches have their own ways from some size on: fewer queries would be another method.
    ``recall`` is the share of the exact answers that it gives, found before it is timed.
    """

    method: str
    run: Callable[[int], Any]
    exact: bool = True
    recall: float | None = 1.0
    bytes_per_row: float | None = None
    at_least: int = 4


@dataclass(frozen=True)
class Timed:
    """µs per query in each round."""

    contender: Contender
    rounds: list[float] = field(default_factory=list)

    @property
    def us(self) -> float:
        """The median."""
        return median(self.rounds)


@dataclass(frozen=True)
class Budget:
    """``rounds`` of at most about ``seconds`` for each contender."""

    rounds: int
    seconds: float


def take_turns(contenders: Sequence[Contender], n_queries: int, budget: Budget) -> list[Timed]:
    """Time contenders round by round, each time in another order."""
    timed = [Timed(contender) for contender in contenders]
    counts = [_affordable(contender, n_queries, budget.seconds) for contender in contenders]
    gc.collect()
    gc.disable()
    try:
        for number in range(budget.rounds):
            for step in range(len(timed)):
                place = (step + number) % len(timed)
                time.sleep(_REST_S)
                timed[place].rounds.append(_per_query(timed[place].contender, counts[place]))
    finally:
        gc.enable()
    return timed


class Spent(NamedTuple):
    """Seconds of whole runs in each round, by name: on the clock, and of all CPUs together."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> Spent:
    """Time whole runs, each time in another order: what takes long, or cannot be cut in pieces.

    CPU seconds are those of this process and of those that it has waited for. Where the machine
    is busy with something else they say more than the clock.
    """
    names = list(runs)
    spent = Spent({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began, before = time.perf_counter(), sum(os.times()[:4])
            runs[name]()
            spent.wall[name].append(time.perf_counter() - began)
            spent.cpu[name].append(max(sum(os.times()[:4]) - before, 0.01))  # its clock's tick
    return spent


def quotient(first: Sequence[float], second: Sequence[float]) -> float:
    """The median over rounds of the first seconds divided by the second."""
    return median(a / b for a, b in zip(first, second, strict=True))


def fastest(contenders: Sequence[Contender], n_queries: int, seconds: float) -> Contender:
    """The best of several settings of one method, by a short trial of each."""
    if len(contenders) == 1:
        return contenders[0]
    trials = take_turns(contenders, n_queries, Budget(2, seconds))
    return min(trials, key=lambda trial: min(trial.rounds)).contender


def serious(contenders: Sequence[Contender], n_queries: int, seconds: float) -> list[Contender]:
    """Those that are not hopelessly behind in a trial of a few queries."""
    few = [replace(contender, at_least=4) for contender in contenders]
    trials = take_turns(few, n_queries, Budget(2, seconds))
    bound = _HOPELESS * min(min(trial.rounds) for trial in trials)
    return [c for c, trial in zip(contenders, trials, strict=True) if min(trial.rounds) <= bound]


def ratio(slower: Timed, faster: Timed) -> float:
    """How many times as fast: the median over rounds."""
    return median(s / f for s, f in zip(slower.rounds, faster.rounds, strict=True))


def _affordable(contender: Contender, n_queries: int, seconds: float) -> int:
    least = min(contender.at_least, n_queries)
    count = least
    while True:  # twice the first time: what is made at the first use is not the method's speed
        contender.run(count)
        spent = _per_query(contender, count) * count / 1e6
        if count == n_queries or spent > seconds / 8:
            return max(min(n_queries, int(count * seconds / max(spent, 1e-9))), least)
        count = min(4 * count, n_queries)


def _per_query(contender: Contender, count: int) -> float:
    began = time.perf_counter()
    contender.run(count)
    return (time.perf_counter() - began) / count * 1e6
