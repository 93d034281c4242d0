"""A unit in this process's hands: what is to be embedded of it, and what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from patchknn.archive.rows import Rows
from patchknn.archive.writer import ArchiveWriter
from patchknn.datasets.patches import Patch, Problem
from patchknn.encoder.inference import FeatureExtractor
from patchknn.errors import ConflictError
from patchknn.indexing.collect import UnitRows
from patchknn.indexing.features import Embedded, ReadSettings, embed_batches
from patchknn.indexing.signals import signals_deferred
from patchknn.indexing.units import WorkUnit
from patchknn.jobs.units import Outcome


@dataclass
class Work:
    """A unit that was claimed, its rows, and what of them the writer took.

    ``problems`` are its failures so far; not ``complete``: it was stopped with some of it done.
    """

    unit: WorkUnit
    problems: list[Problem]
    rows: Rows | None = None
    count: int = 0
    sources: int = 0
    complete: bool = True

    def taken_in(self, writer: ArchiveWriter, *, replace: bool) -> None:
        """Give the rows to a writer, which may refuse them."""
        rows, self.rows = self.rows, None
        if rows is None:
            return
        try:
            writer.add(rows, replace=replace)
        except ConflictError as error:
            self.problems.append(Problem(self.unit.name, str(error), final=True))
        else:
            self.count, self.sources = len(rows), len(np.unique(rows.source))

    def outcome(self) -> Outcome:
        """What is said of the unit in the run's records."""
        name, problems = self.unit.name, self.problems
        if not problems:
            return Outcome(name, "done" if self.count else "empty", count=self.count)
        detail = problems[0].error
        if len(self.unit.entries) > 1:
            detail += f" ({len(problems)} of {len(self.unit.entries)} failed.)"
        final = all(problem.final for problem in problems)
        return Outcome(name, "failed", detail, self.count or None, final=final)


class LocalEmbedding:
    """Embeds the patches of units in this process, in batches that never cross units.

    ``finished`` is called with each unit's work once its rows are complete, ``after`` with the
    number of patches of every batch.
    """

    def __init__(
        self,
        make_extractor: Callable[[], FeatureExtractor],
        reading: ReadSettings,
        batch_size: int,
        finished: Callable[[Work], None],
        after: Callable[[int], None],
    ) -> None:
        self._make_extractor, self._reading = make_extractor, reading
        self._batch_size = batch_size
        self._finished, self._after = finished, after
        self._in_flight: deque[tuple[Work, UnitRows, bool]] = deque()

    def run(self, works: Iterable[tuple[Work, UnitRows, list[Patch]]]) -> None:
        """Embed what is given, which is drawn ahead by a few batches."""
        batches = self._batches(works)
        first = next(batches, None)
        if first is None:
            return
        extractor = self._make_extractor()
        for batch in embed_batches(chain([first], batches), extractor, self._reading):
            with signals_deferred():  # a batch is taken in as a whole or not at all
                self._take(batch)
            self._after(len(batch))

    def keep_complete_images(self) -> None:
        """Of a block of images in hand, those that are done are whole sources already."""
        unfinished = {id(work): (work, rows) for work, rows, _ in self._in_flight}
        self._in_flight.clear()
        for work, rows in unfinished.values():
            if not work.unit.is_slide:
                work.rows, work.complete = rows.rows(), False
                self._finished(work)

    def _take(self, batch: list[Embedded]) -> None:
        work, rows, last = self._in_flight.popleft()
        rows.add(batch)
        if last:
            work.problems += rows.failures()
            work.rows = rows.rows()
            self._finished(work)

    def _batches(
        self, works: Iterable[tuple[Work, UnitRows, list[Patch]]]
    ) -> Iterator[list[Patch]]:
        for work, rows, patches in works:
            for start in range(0, len(patches), self._batch_size):
                stop = start + self._batch_size
                self._in_flight.append((work, rows, stop >= len(patches)))
                yield patches[start:stop]
