"""The ways to search that an evaluation compares, in this process or spread over many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.exhaustive import ExhaustiveSearch, Found
from patchknn.evaluation.exhaustive_shares import SpreadExhaustiveSearch
from patchknn.jobs.cpus import available_cpus
from patchknn.search.answers import Answer, Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings
from patchknn.search.spread import Spreading, SpreadSearcher

_BLOCK = 1024  # queries that share what they read of all rows; their answers take some megabytes


class Answers(Protocol):
    """Whoever answers queries in their order: a Searcher, or one that is spread."""

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """What cannot be answered passes as a Failure."""


class Yardstick(Protocol):
    """Whoever finds the nearest of all rows."""

    def search(self, queries: Sequence[Query], targets: npt.NDArray[Any]) -> list[Found]:
        """The k nearest rows of each query; ``targets`` (q, D) are the queries' vectors."""


class Ways(NamedTuple):
    """The search itself, the same without widening, and the one over all rows where it is wanted.

    ``block`` queries are put to each together.
    """

    searcher: Answers
    narrow: Answers
    exhaustive: Yardstick | None
    block: int = _BLOCK


def in_this_process(
    snapshot: Snapshot, settings: SearchSettings, *, yardstick: bool = True
) -> Ways:
    """Searches that use the processors of this process. Raises as Searcher does."""
    threads = available_cpus()
    return Ways(
        Searcher(snapshot, settings, threads),
        Searcher(snapshot, _unwidened(settings), threads),
        ExhaustiveSearch(snapshot, settings, threads=threads) if yardstick else None,
    )


def spread(snapshot: Snapshot, settings: SearchSettings, spreading: Spreading) -> Ways:
    """The same in shares of the archive. Raises as SpreadSearcher does."""
    return Ways(
        SpreadSearcher(snapshot, settings, spreading),
        SpreadSearcher(snapshot, _unwidened(settings), spreading),
        SpreadExhaustiveSearch(snapshot, settings, spreading),
        spreading.block * spreading.blocks,
    )


def _unwidened(settings: SearchSettings) -> SearchSettings:
    return settings._replace(max_radius=settings.radius)
