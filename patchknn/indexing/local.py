"""Embedding in this process: the batches of one unit after the other go through the encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from patchknn.bundle import Bundle
from patchknn.datasets.patches import Patch
from patchknn.encoder.inference import FeatureExtractor
from patchknn.indexing.collect import UnitRows
from patchknn.indexing.features import EmbeddedBatch, embed_batches
from patchknn.indexing.prepare import open_unit
from patchknn.indexing.profile import Stopwatch
from patchknn.indexing.signals import signals_deferred
from patchknn.indexing.work import EmbeddingSettings, Work


class LocalEmbedding:
    """As Embedding, in batches that never cross units.

    ``make_extractor`` is called when there is something to embed; ``stopwatch`` takes down where
    the time goes.
    """

    def __init__(
        self,
        bundle: Bundle,
        make_extractor: Callable[[], FeatureExtractor],
        settings: EmbeddingSettings,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._bundle, self._make_extractor = bundle, make_extractor
        self._settings = settings
        self._stopwatch = stopwatch or Stopwatch()
        self._in_flight: deque[tuple[Work, UnitRows, bool]] = deque()

    def run(
        self,
        works: Iterable[Work],
        finished: Callable[[Work], None],
        after: Callable[[int], None],
    ) -> None:
        """As Embedding; works are drawn ahead by a few batches."""
        batches = self._batches(works, finished)
        with self._stopwatch.time("preparing"):
            first = next(batches, None)
        if first is None:
            return
        extractor = self._make_extractor()
        results = embed_batches(
            chain([first], batches), extractor, self._settings.reading, self._stopwatch
        )
        for batch in results:
            with signals_deferred():  # a batch is taken in as a whole or not at all
                self._take(batch, finished)
            after(len(batch))

    def keep_complete_images(self, finished: Callable[[Work], None]) -> None:
        """As Embedding; they are whole sources already."""
        unfinished = {id(work): (work, rows) for work, rows, _ in self._in_flight}
        self._in_flight.clear()
        for work, rows in unfinished.values():
            if not work.unit.is_slide:
                work.rows, work.complete = rows.rows(), False
                finished(work)

    def _take(self, batch: EmbeddedBatch, finished: Callable[[Work], None]) -> None:
        work, rows, last = self._in_flight.popleft()
        with self._stopwatch.time("taking", len(batch)):
            rows.add(batch)
        if last:
            work.problems += rows.failures()
            work.rows = rows.rows()
            finished(work)

    def _batches(
        self, works: Iterable[Work], finished: Callable[[Work], None]
    ) -> Iterator[list[Patch]]:
        size = self._settings.batch_size
        for work in works:
            opened = open_unit(work.looked, self._settings.patches)
            work.problems += opened.problems
            work.empty = opened.empty
            if not opened.patches:
                with signals_deferred():
                    finished(work)
                continue
            rows = UnitRows(
                *(work.unit, opened.sources, self._bundle, self._settings.feature_dtype),
                expected=len(opened.patches),
            )
            for start in range(0, len(opened.patches), size):
                stop = start + size
                self._in_flight.append((work, rows, stop >= len(opened.patches)))
                yield opened.patches[start:stop]
