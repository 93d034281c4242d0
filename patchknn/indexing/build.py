"""``embed``: units are claimed, embedded, written and published, by any number of processes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from patchknn.archive.index.after_publishing import try_update_index
from patchknn.archive.leftovers import CLAIMS
from patchknn.archive.runs import write_run
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle
from patchknn.datasets.entries import iter_entries
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.tiles import PatchSettings
from patchknn.encoder.inference import FeatureExtractor
from patchknn.errors import ConflictError, StoppedError
from patchknn.indexing.collect import UnitRows
from patchknn.indexing.features import Embedded, ReadSettings, embed_batches
from patchknn.indexing.prepare import Preparation, Prepared
from patchknn.indexing.signals import signals_deferred
from patchknn.indexing.units import WorkUnit, iter_units
from patchknn.jobs.claims import Claims


@dataclass(frozen=True)
class BuildSettings:
    """How an archive is added to.

    What is complete is published every ``publish_seconds`` or ``publish_rows``, whichever comes
    first: what a killed process loses is no more than that. With ``replace`` a source whose file
    has changed takes the place of what is archived under its name; ``store_paths`` keeps absolute
    paths, in the run's record too.
    """

    patches: PatchSettings
    reading: ReadSettings
    shard_format: str = "zarr"
    batch_size: int = 64
    split: str | None = None
    publish_seconds: float = 300.0
    publish_rows: int = 200_000
    replace: bool = False
    store_paths: bool = False


@dataclass
class Counts:
    """What came of it, in sources except ``rows``; ``held`` are in the hands of other processes."""

    rows: int = 0
    sources: int = 0
    skipped: int = 0
    replaced: int = 0
    empty: int = 0
    failed: int = 0
    held: int = 0
    patches: int = 0
    manifest: int | None = None
    failures: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """Where progress goes: patches embedded, each input that failed with its sentence, warnings."""

    patches: Callable[[int], None]
    failure: Callable[[str, str], None]
    warning: Callable[[str], None] = lambda _: None


_KEPT_FAILURES = 1000


class ArchiveBuild:
    """One process's part in embedding sources into an archive that exists already.

    ``make_extractor`` is called when there is something to embed. ``record`` is the beginning of
    the run's record.
    """

    def __init__(
        self,
        archive: Path,
        bundle: Bundle,
        make_extractor: Callable[[], FeatureExtractor],
        settings: BuildSettings,
        report: Report,
        *,
        run_id: str,
        record: dict[str, Any],
    ) -> None:
        self.counts = Counts()
        self._archive, self._bundle, self._settings = archive, bundle, settings
        self._make_extractor, self._report = make_extractor, report
        self._run_id, self._record = run_id, record
        self._extractor: FeatureExtractor | None = None
        self._in_flight: deque[tuple[_Work, bool]] = deque()
        self._postponed: list[WorkUnit] = []
        self._unpublished: list[_Work] = []
        self._indexed = True
        self._published_at = time.monotonic()

    def run(self, arguments: Iterable[str | Path]) -> Counts:
        """Embed and publish everything that the arguments name and the archive lacks.

        A signal publishes what is complete and goes on its way (StoppedError). Errors of single
        inputs are counted and reported; a full disk and the like end the run, with everything
        published so far kept.
        """
        self._write_record()
        with (
            Claims(self._archive / CLAIMS) as claims,
            ArchiveWriter(
                self._archive,
                format=self._settings.shard_format,
                run_id=self._run_id,
                store_paths=self._settings.store_paths,
            ) as writer,
        ):
            self._claims, self._writer = claims, writer
            self._preparation = Preparation(
                self._archive, self._settings.patches, replace=self._settings.replace
            )
            try:
                self._embed(iter_units(iter_entries(arguments, split=self._settings.split)))
                postponed, self._postponed = self._postponed, []
                self._embed(postponed)
                for unit in self._postponed:
                    self.counts.held += len(unit.entries)
                self._publish()
                self._index()
            except (StoppedError, KeyboardInterrupt):
                with signals_deferred():
                    self._keep_complete_images()
                    self._publish()
                raise
            except BaseException:
                with suppress(OSError):
                    self._publish()
                raise
            finally:
                self.counts.manifest = self._preparation.newest()
                with suppress(OSError):
                    self._write_record()
        return self.counts

    def _embed(self, units: Iterable[WorkUnit | Problem]) -> None:
        batches = self._batches(units)
        first = next(batches, None)
        if first is None:
            return
        extractor = self._extractor = self._extractor or self._make_extractor()
        results = embed_batches(chain([first], batches), extractor, self._settings.reading)
        for batch in results:
            with signals_deferred():  # a batch is taken in as a whole or not at all
                self._take(batch)
            self._index()

    def _take(self, batch: list[Embedded]) -> None:
        work, last = self._in_flight.popleft()
        work.rows.add(batch)
        self.counts.patches += len(batch)
        self._report.patches(len(batch))
        if last:
            for problem in work.rows.failures():
                self._failed(problem)
            self._write(work)
        if self._is_time():
            self._publish()

    def _batches(self, units: Iterable[WorkUnit | Problem]) -> Iterator[list[Patch]]:
        size = self._settings.batch_size
        for unit in units:
            if isinstance(unit, Problem):
                self._failed(unit)
                continue
            prepared = self._claimed(unit)
            if prepared is None or not prepared.patches:
                continue
            dtype = self._writer.settings.feature_dtype
            rows = UnitRows(unit, prepared.sources, self._bundle, dtype)
            work = _Work(unit.name, rows)
            for start in range(0, len(prepared.patches), size):
                batch = prepared.patches[start : start + size]
                self._in_flight.append((work, start + size >= len(prepared.patches)))
                yield batch

    def _claimed(self, unit: WorkUnit) -> Prepared | None:
        """What is left to do of a unit, which is then this process's; None where it is not."""
        wanted = self._preparation.look(unit)
        if wanted.unit is not None:
            if not self._claims.claim(unit.name):
                self._postponed.append(unit)
                return None
            # Whoever had it before may have published it between the look and the claim.
            wanted = self._preparation.look(unit)
        prepared = self._preparation.open(wanted)
        self.counts.skipped += prepared.skipped
        self.counts.replaced += prepared.replaced
        self.counts.empty += prepared.empty
        for problem in prepared.problems:
            self._failed(problem)
        if not prepared.patches:
            self._claims.release(unit.name)
        return prepared

    def _write(self, work: _Work) -> None:
        rows = work.rows.rows()
        if rows is not None:
            try:
                self._writer.add(rows, replace=self._settings.replace)
            except ConflictError as error:
                self._failed(Problem(work.unit, str(error)))
            else:
                work.count, work.sources = len(rows), work.rows.archived_sources
        self._unpublished.append(work)

    def _keep_complete_images(self) -> None:
        """Of a block of images in hand, those that are done are whole sources already."""
        unfinished = {id(work): work for work, _ in self._in_flight}
        for work in unfinished.values():
            if not work.rows.unit.is_slide:
                self._write(work)

    def _is_time(self) -> bool:
        waiting = sum(work.count for work in self._unpublished)
        late = time.monotonic() - self._published_at >= self._settings.publish_seconds
        return bool(waiting) and (late or waiting >= self._settings.publish_rows)

    def _publish(self) -> None:
        duplicates = self._writer.duplicates
        with signals_deferred():
            try:
                self._indexed &= self._writer.publish() is None
            except ConflictError as error:
                self._failed(Problem(str(self._archive), str(error)))
                self._indexed = False
            works, self._unpublished = self._unpublished, []
            for work in works:
                self._claims.release(work.unit)
            self.counts.rows += sum(work.count for work in works)
            self.counts.rows -= self._writer.duplicates - duplicates
            self.counts.sources += sum(work.sources for work in works)
            self._published_at = time.monotonic()

    def _index(self) -> None:
        """What was published is found without an index too, only later: a signal may end this."""
        if not self._indexed:
            self._indexed = True
            warning = try_update_index(self._archive)
            if warning is not None:
                self._report.warning(warning)

    def _failed(self, problem: Problem) -> None:
        self.counts.failed += 1
        if len(self.counts.failures) < _KEPT_FAILURES:
            self.counts.failures.append({"name": problem.name, "error": problem.error})
        self._report.failure(problem.name, problem.error)

    def _write_record(self) -> None:
        counts = self.counts
        numbers = {name: value for name, value in vars(counts).items() if name not in {"failures"}}
        record = {**self._record, "counts": numbers, "failures": counts.failures}
        write_run(self._archive, self._run_id, record, paths=self._settings.store_paths)


@dataclass
class _Work:
    """A unit in this process's hands: its rows, and what of them the writer took."""

    unit: str
    rows: UnitRows
    count: int = 0
    sources: int = 0
