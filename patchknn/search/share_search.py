"""What a process does for others: it searches its share of an archive, and counts around queries.

Functions of what they are given: the same task has the same result in any process, at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.hamming import kernels
from patchknn.search.demands import Demands
from patchknn.search.found import FoundMany
from patchknn.search.parts import Codes, DamagedPartError
from patchknn.search.pool import Demand
from patchknn.search.query import Query
from patchknn.search.reach import Near, rows_near
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.shares import ONE_AT_A_TIME, Share, open_share
from patchknn.search.two_stage import TwoStage

_SHARES = 32  # that a process keeps open; what they hold is mapped, not read


class Asked(NamedTuple):
    """A share, and how it is searched; with ``explain`` each query is searched for alone."""

    share: Share
    settings: SearchSettings
    threads: int
    explain: bool


class RankTask(NamedTuple):
    """``queries``, features as the archive stores them and codes made, each at its own radius."""

    asked: Asked
    queries: Sequence[Query]
    radii: npt.NDArray[np.int64]


class Ranked(NamedTuple):
    """The k nearest rows of each query in its ball within the share, in rank order.

    ``balls`` of ``found`` count the rows of the ball within the share; nothing is widened.
    """

    found: FoundMany
    segments: int
    bare_shards: int
    problems: Sequence[str]


class ReachTask(NamedTuple):
    """``queries`` whose balls hold too few rows; as in RankTask."""

    asked: Asked
    queries: Sequence[Query]


class Reached(NamedTuple):
    """What lies near each query within the share; ``groups`` has a name for each of its rows."""

    near: Sequence[Near]
    groups: Sequence[Sequence[tuple[str, str]]]
    problems: Sequence[str]


def rank_share(task: RankTask) -> Ranked:
    """The nearest rows of a share. Raises InputError or ConflictError where it is not seen here."""
    with ONE_AT_A_TIME:
        return _opened(task.asked).ranked(task.queries, task.radii)


def reach_share(task: ReachTask) -> Reached:
    """How far a share alone must be searched for k rows. Raises as ``rank_share``."""
    with ONE_AT_A_TIME:
        return _opened(task.asked).reached(task.queries)


@lru_cache(maxsize=_SHARES)
def _opened(asked: Asked) -> _ShareSearcher:
    return _ShareSearcher(asked)


class _ShareSearcher:
    """One share, opened."""

    def __init__(self, asked: Asked) -> None:
        kernels.chosen()
        settings = asked.settings
        self._asked = asked
        self._snapshot = open_share(asked.share)
        self._widest = settings.widest_radius(self._snapshot.settings.bits)
        self._reader = RowReader(self._snapshot)
        self._demands = Demands(self._snapshot, settings, self._reader)
        self._stages = TwoStage(
            self._snapshot, self._reader, settings.radius, settings.radius, asked.threads
        )

    def ranked(self, queries: Sequence[Query], radii: npt.NDArray[np.int64]) -> Ranked:
        codes, demands = self._demanded(queries)
        features = np.stack([query.feature for query in queries])
        different = np.unique(radii).tolist()
        found = self._found(features, codes, demands, int(different[0]))
        if len(different) > 1:
            each = list(found)
            for radius in different:
                some = np.flatnonzero(radii == radius).tolist()
                own = [demands[number] for number in some]
                again = self._found(features[some], codes[some], own, radius)
                for number, one in zip(some, again, strict=True):
                    each[number] = one
            found = FoundMany.of(each)
        stages = self._stages
        return Ranked(found, stages.n_segments, stages.n_bare_shards, self._problems)

    def reached(self, queries: Sequence[Query]) -> Reached:
        codes, demands = self._demanded(queries)
        if self._snapshot.has_removed:  # each row is looked at, none only counted
            demands = [demand._replace(skip=None) for demand in demands]
        while True:
            try:
                near = rows_near(
                    self._stages.parts, codes, demands, self._widest, self._asked.threads
                )
                break
            except DamagedPartError as error:
                self._stages.leave(error)
        kind = "" if self._asked.settings.max_per is None else self._asked.settings.max_per[0]
        groups = [self._reader.group_keys(one.rows, kind) for one in near]
        return Reached(near, groups, self._problems)

    @property
    def _problems(self) -> Sequence[str]:
        return self._snapshot.cover.problems

    def _demanded(self, queries: Sequence[Query]) -> tuple[Codes, list[Demand]]:
        codes = [query.code for query in queries if query.code is not None]
        return np.stack(codes), self._demands.of(queries, codes)

    def _found(
        self, features: npt.NDArray[Any], codes: Codes, demands: Sequence[Demand], radius: int
    ) -> FoundMany:
        stages = self._stages.at(radius)
        if len(codes) > 1 and not self._asked.explain:
            return stages.find_many(features, codes, demands)
        each = zip(features, codes, demands, strict=True)
        return FoundMany.of([stages.find(*one) for one in each])
