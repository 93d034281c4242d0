"""The two-stage search by the first bits of the stored codes alone: what fewer bits would cost.

For codes whose bits were learnt together a prefix is a lower bound: an encoder trained for fewer
bits may do better with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import UsageError
from patchknn.hamming.scan import scan_rows
from patchknn.search.answering import Answering
from patchknn.search.answers import Answer, Failure
from patchknn.search.demands import Demands
from patchknn.search.found import Found, FoundMany
from patchknn.search.parts import Codes
from patchknn.search.pool import Demand, Yield
from patchknn.search.query import Query
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.work import Work

_BLOCK = 32


class PrefixSearcher:
    """Answers as Searcher does of an archive whose codes have but their first ``bits`` bits.

    Filters, the radius that widens, the ranking by L2 and the vote are the same; all codes are
    compared (n · bits / 8 bytes in memory), in this process. The ``hamming`` of the neighbours is
    that of the whole codes. Raises UsageError unless ``bits`` is a multiple of 8 up to those of the
    archive, and as Searcher does.
    """

    def __init__(
        self, snapshot: Snapshot, settings: SearchSettings, bits: int, threads: int = 1
    ) -> None:
        stored = snapshot.settings.bits
        if bits % 8 or not 8 <= bits <= stored:
            message = f"{bits} bits: give a multiple of 8 up to the archive's {stored}."
            raise UsageError(message)
        self._bytes = bits // 8
        self._radius = settings.radius
        self._widest = settings.widest_radius(bits)
        if self._radius > bits:
            message = f"--radius {self._radius} is more than {bits} bits."
            raise UsageError(message)
        self._threads = threads
        self._reader = RowReader(snapshot)
        self._demands = Demands(snapshot, settings, self._reader)
        self._answering = Answering(snapshot, settings, self._reader)
        empty = np.zeros((0, self._bytes), np.uint8)
        codes = [shard.codes[:, : self._bytes] for shard in snapshot.shards]
        self._codes = np.concatenate([empty, *codes])

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answers in the queries' order; what cannot be answered passes as a Failure."""
        stream = iter(queries)
        while block := list(islice(stream, _BLOCK)):
            ready = self._answering.ready(block, self._demands.check)
            demands = self._demands.of(ready.queries, ready.codes)
            found = self._find(ready.features, ready.codes, demands)
            yield from self._answering.answers(ready, FoundMany.of(found), None)

    def _find(
        self, features: Sequence[np.ndarray], codes: Sequence[Codes], demands: Sequence[Demand]
    ) -> list[Found]:
        if not features:
            return []
        prefixes = np.stack(codes)[:, : self._bytes]
        offsets, rows, bits = scan_rows(self._codes, prefixes, self._widest, self._threads)
        return [
            self._ranked(
                rows[offsets[number] : offsets[number + 1]],
                bits[offsets[number] : offsets[number + 1]],
                feature,
                demand,
            )
            for number, (feature, demand) in enumerate(zip(features, demands, strict=True))
        ]

    def _ranked(
        self, rows: RowNumbers, bits: np.ndarray, feature: np.ndarray, demand: Demand
    ) -> Found:
        admitted = demand.admits(rows)
        rows, bits = rows[admitted], bits[admitted]
        radius = self._reach(rows, bits, demand)
        ball = rows[bits <= radius]
        distances = self._reader.distances(ball, feature)
        groups = demand.groups
        order = nearest(
            distances,
            demand.k,
            lambda tied: self._reader.tie_keys(ball[tied]),
            None if groups is None else lambda some: groups(ball[some]),
            demand.per_group,
        )
        widened = radius > self._radius
        return Found(ball[order], distances[order], radius, len(ball), widened, Work())

    def _reach(self, rows: RowNumbers, bits: np.ndarray, demand: Demand) -> int:
        """The smallest radius whose ball yields k, not below the one asked for."""
        found = Yield(demand)
        for radius in range(self._radius, self._widest + 1):
            found.add(rows[bits == radius if radius > self._radius else bits <= radius])
            if found.suffices():
                return radius
        return self._widest
