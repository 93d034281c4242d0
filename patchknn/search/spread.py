"""A search that others do, each in its share of the archive, and its answers put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.errors import UsageError
from patchknn.hamming import kernels
from patchknn.search.answering import Answering, Ready
from patchknn.search.answers import Answer, Failure
from patchknn.search.demands import Demands
from patchknn.search.engine import BLOCK
from patchknn.search.found import Found, FoundMany
from patchknn.search.merging import merged
from patchknn.search.query import Query
from patchknn.search.reach import smallest_radius
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.share_search import (
    Asked,
    Ranked,
    RankTask,
    Reached,
    ReachTask,
    rank_share,
    reach_share,
)
from patchknn.search.shares import Map, shares_of
from patchknn.search.work import Work

_BLOCKS = 16  # that are asked for together: as many times as many tasks as there are shares
_NO_SHARD = np.zeros(0, np.int64)


class Spreading(NamedTuple):
    """How a search is spread: ``map_tasks`` has tasks done, in any process, one share each.

    Queries go in blocks of ``block``, ``blocks`` of them together: more blocks keep more processes
    busy than there are shares. ``threads`` are those of one task.
    """

    map_tasks: Map
    shares: int
    threads: int = 1
    block: int = BLOCK
    blocks: int = _BLOCKS


class SpreadSearcher:
    """Answers queries as Searcher does, to the last bit, from shares that are searched elsewhere.

    Every process must see the archive under the same path. The shares are asked for the k nearest
    rows in each ball; where these are too few, for what they hold further out, and then for the
    nearest in the smallest ball that suffices.

    Raises UsageError as Searcher does and for a coarse stage other than ``hamming``; what a
    ``where`` meets in the records only, and what a process cannot open, is raised by
    ``search_many``.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: SearchSettings,
        spreading: Spreading,
        *,
        explain: bool = False,
    ) -> None:
        kernels.chosen()
        if settings.coarse != "hamming":
            message = (
                f"--coarse {settings.coarse} holds all rows in the memory of one process: search "
                "with it on one machine, or leave it away."
            )
            raise UsageError(message)
        self.snapshot = snapshot
        self.settings = settings
        self.bundle: Bundle = snapshot.bundle()
        self._spreading = spreading
        self._reader = RowReader(snapshot)
        # Whether settings can be met is seen without a look at the rows, which others have.
        self._demands = Demands(snapshot.share(_NO_SHARD), settings, self._reader)
        self._answering = Answering(snapshot, settings, self._reader)
        self._radius = settings.radius
        self._widest = settings.widest_radius(snapshot.settings.bits)
        self._asked = [
            Asked(share, settings, spreading.threads, explain)
            for share in shares_of(snapshot, spreading.shares)
        ]
        self._segments = [0] * len(self._asked)
        self._bare_shards = [0] * len(self._asked)
        self._problems: dict[str, None] = {}
        self._explain = explain

    @property
    def problems(self) -> Sequence[str]:
        """What was found wrong with the index so far, here and elsewhere, in sentences."""
        return tuple(dict.fromkeys((*self.snapshot.cover.problems, *self._problems)))

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answer queries in their order; what cannot be answered passes as a Failure."""
        explain = self._explained if self._explain else None
        stream = iter(queries)
        size = self._spreading.block
        while together := list(islice(stream, size * self._spreading.blocks)):
            blocks = [
                self._answering.ready(together[start : start + size], self._demands.check)
                for start in range(0, len(together), size)
            ]
            found = self._find([_bare_queries(block) for block in blocks])
            for block, own in zip(blocks, found, strict=True):
                yield from self._answering.answers(block, own, explain)

    def _find(self, blocks: Sequence[Sequence[Query]]) -> list[FoundMany]:
        radii = [np.full(len(block), self._radius, np.int64) for block in blocks]
        found = self._ranked(blocks, radii)
        if self._widest <= self._radius:
            return found
        # Fewer than k rows came back where all shares together could not yield more.
        lacking = [
            (number, place)
            for number, one in enumerate(found)
            for place in np.flatnonzero(np.diff(one.offsets) < self._demands.k).tolist()
        ]
        if lacking:
            wider = self._widened([blocks[number][place] for number, place in lacking])
            each = [list(one) for one in found]
            for (number, place), one in zip(lacking, wider, strict=True):
                work = _added(one.work, each[number][place].work)
                each[number][place] = one._replace(widened=True, work=work)
            found = [FoundMany.of(some) for some in each]
        return found

    def _widened(self, queries: Sequence[Query]) -> Iterator[Found]:
        """What queries find in the smallest balls that suffice."""
        size = self._spreading.block
        blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
        radii, work = self._radii(blocks)
        for found, looked in zip(self._ranked(blocks, radii), work, strict=True):
            for one, more in zip(found, looked, strict=True):
                yield one._replace(work=_added(one.work, more))

    def _radii(
        self, blocks: Sequence[Sequence[Query]]
    ) -> tuple[list[npt.NDArray[np.int64]], list[list[Work]]]:
        """The radius that each query needs, and what it took to find that out."""
        tasks = [ReachTask(asked, block) for block in blocks for asked in self._asked]
        results: Iterator[Reached] = self._mapped(reach_share, tasks)
        radii, work = [], []
        for block in blocks:
            shares = list(islice(results, len(self._asked)))
            for share in shares:
                self._note(share.problems)
            radii.append(np.array([self._needed(shares, n) for n in range(len(block))], np.int64))
            parts = [[Work(*s.near[n].work.tolist()) for s in shares] for n in range(len(block))]
            work.append([reduce(_added, some, Work()) for some in parts])
        return radii, work

    def _needed(self, shares: Sequence[Reached], query: int) -> int:
        near = [share.near[query] for share in shares]
        groups, per_group = None, 0
        if self.settings.max_per is not None:
            numbering: dict[tuple[str, str], int] = {}
            names = [name for share in shares for name in share.groups[query]]
            groups = np.array([numbering.setdefault(n, len(numbering)) for n in names], np.int64)
            _, per_group = self.settings.max_per
        return smallest_radius(
            [one.enough for one in near],
            np.concatenate([_NO_SHARD, *(one.distances for one in near)]),
            groups,
            k=self._demands.k,
            per_group=per_group,
            widest=self._widest,
        )

    def _ranked(
        self, blocks: Sequence[Sequence[Query]], radii: Sequence[npt.NDArray[np.int64]]
    ) -> list[FoundMany]:
        """What all shares together hold nearest to each query, within its radius."""
        asked = [pair for pair in zip(blocks, radii, strict=True) if len(pair[0])]
        tasks = [RankTask(share, *pair) for pair in asked for share in self._asked]
        results: Iterator[Ranked] = self._mapped(rank_share, tasks)
        return [
            merged(
                self._shares_found(results) if len(own) else (),
                own,
                self._demands.k,
                self.settings.max_per,
                self._reader,
            )
            for own in radii
        ]

    def _shares_found(self, results: Iterator[Ranked]) -> Iterator[FoundMany]:
        """What each share found for the next block."""
        for number, ranked in enumerate(islice(results, len(self._asked))):
            self._segments[number] = ranked.segments
            self._bare_shards[number] = ranked.bare_shards
            self._note(ranked.problems)
            yield ranked.found

    def _mapped(self, function: Any, tasks: Sequence[Any]) -> Iterator[Any]:
        return iter(self._spreading.map_tasks(function, tasks)) if tasks else iter(())

    def _note(self, problems: Sequence[str]) -> None:
        """Remember what was found wrong elsewhere, by the path that was given here."""
        there, here = str(self.snapshot.path.absolute()), str(self.snapshot.path)
        self._problems.update(dict.fromkeys(one.replace(there, here) for one in problems))

    def _explained(self, found: Found) -> dict[str, Any]:
        return {
            "kernels": kernels.chosen(),
            "segments": sum(self._segments),
            "shards_without_index": sum(self._bare_shards),
            **found.work.as_json(),
        }


def _added(work: Work, more: Work) -> Work:
    """Both together, by the path of the first."""
    _, *steps = map(sum, zip(work, more, strict=True))
    return Work(work.path, *steps)


def _bare_queries(ready: Ready) -> list[Query]:
    """Queries with what a search needs of them, ready to be sent."""
    return [
        query._replace(feature=feature, code=code, patch_id=None, label=None, row=None)
        for query, feature, code in zip(ready.queries, ready.features, ready.codes, strict=True)
    ]
