"""The search over all rows, spread: each process goes through its share of the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.exhaustive import ExhaustiveSearch, Found
from patchknn.search.merging import nearest_of
from patchknn.search.query import Query
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.shares import ONE_AT_A_TIME, Share, open_share, shares_of
from patchknn.search.spread import Spreading

_SHARES = 32  # that a process keeps open
_NO_FEATURE = np.zeros(0)


class ExhaustiveTask(NamedTuple):
    """Queries put to all rows of a share; ``targets`` (Q, D) are their vectors."""

    share: Share
    settings: SearchSettings
    queries: Sequence[Query]
    targets: npt.NDArray[Any]


def search_share(task: ExhaustiveTask) -> list[Found]:
    """The k nearest rows of each query within the share.

    Raises InputError or ConflictError where the share is not seen here.
    """
    with ONE_AT_A_TIME:
        return _opened(task.share, task.settings).search(task.queries, task.targets)


@lru_cache(maxsize=_SHARES)
def _opened(share: Share, settings: SearchSettings) -> ExhaustiveSearch:
    return ExhaustiveSearch(open_share(share), settings)


class SpreadExhaustiveSearch:
    """Finds what ExhaustiveSearch does among the stored features."""

    def __init__(self, snapshot: Snapshot, settings: SearchSettings, spreading: Spreading) -> None:
        self._k = min(settings.k, len(snapshot) + 1)
        self._settings = settings
        self._spreading = spreading
        self._reader = RowReader(snapshot)
        self._shares = shares_of(snapshot, spreading.shares)

    def search(self, queries: Sequence[Query], targets: npt.NDArray[Any]) -> list[Found]:
        """The k nearest rows of each query, as ExhaustiveSearch finds them."""
        size = self._spreading.block
        blocks = [slice(start, start + size) for start in range(0, len(queries), size)]
        asked = [query._replace(feature=_NO_FEATURE, code=None) for query in queries]
        tasks = [
            ExhaustiveTask(share, self._settings, asked[block], targets[block])
            for block in blocks
            for share in self._shares
        ]
        results: Iterator[list[Found]] = iter(())
        if tasks:
            results = iter(self._spreading.map_tasks(search_share, tasks))
        found: list[Found] = []
        for block in blocks:
            shares = list(islice(results, len(self._shares)))
            found += [
                self._together([share[number] for share in shares])
                for number in range(len(queries[block]))
            ]
        return found

    def _together(self, shares: Sequence[Found]) -> Found:
        rows = np.concatenate([np.zeros(0, np.int64), *(one.rows for one in shares)])
        distances = np.concatenate([np.zeros(0), *(one.distances for one in shares)])
        order = nearest_of(rows, distances, self._k, self._settings.max_per, self._reader)
        return Found(rows[order], distances[order])
