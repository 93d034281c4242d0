"""``embed``: units are claimed, embedded, written and published, by any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchknn.archive.index.after_publishing import try_update_index
from patchknn.archive.runs import without_folders, write_run
from patchknn.archive.writer import ArchiveWriter, SourcesTakenError
from patchknn.datasets.entries import iter_entries
from patchknn.datasets.patches import Problem
from patchknn.datasets.tiles import PatchSettings
from patchknn.errors import StoppedError
from patchknn.indexing.prepare import Preparation
from patchknn.indexing.profile import Stopwatch
from patchknn.indexing.signals import signals_deferred
from patchknn.indexing.units import WorkUnit, is_block, iter_units
from patchknn.indexing.work import Embedding, Work
from patchknn.jobs.claims import CLAIMS
from patchknn.jobs.ledger import Ledger
from patchknn.jobs.records import RECORDS
from patchknn.jobs.units import Outcome


@dataclass(frozen=True)
class BuildSettings:
    """How an archive is added to.

    What is complete is published every ``publish_seconds`` or ``publish_rows``, whichever comes
    first: what a killed process loses is no more than that. A unit that fails is tried ``retries``
    times more; ``only_failed``: only units that the archive's records call failed. With
    ``replace`` a source whose file has changed takes the place of what is archived under its name;
    ``store_paths`` keeps absolute paths, in the run's record too.
    """

    patches: PatchSettings
    shard_format: str = "zarr"
    split: str | None = None
    publish_seconds: float = 300.0
    publish_rows: int = 200_000
    retries: int = 1
    only_failed: bool = False
    replace: bool = False
    store_paths: bool = False


@dataclass
class Counts:
    """What came of it, in sources except ``rows``.

    ``held`` are left to other processes, which have them in hand or have tried them in vain.
    """

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
    """Where progress goes: patches embedded, each input that failed with its sentence, warnings.

    ``unit`` is told what became of each unit, as the records are.
    """

    patches: Callable[[int], None]
    failure: Callable[[str, str], None]
    warning: Callable[[str], None] = lambda _: None
    unit: Callable[[Outcome], None] = lambda _: None


_KEPT_FAILURES = 1000


class ArchiveBuild:
    """One process's part in embedding sources into an archive that exists already.

    ``embedding`` does the work. ``record`` is the beginning of the run's record. ``stopwatch``
    takes down where the time goes.
    """

    def __init__(
        self,
        archive: Path,
        embedding: Embedding,
        settings: BuildSettings,
        report: Report,
        *,
        run_id: str,
        record: dict[str, Any],
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.counts = Counts()
        self._stopwatch = stopwatch or Stopwatch()
        self._archive, self._settings, self._report = archive, settings, report
        self._embedding = embedding
        self._run_id, self._record = run_id, record
        self._again: list[WorkUnit] = []
        self._looked_at_last = False
        self._tried: set[str] = set()
        self._elsewhose: dict[str, None] = {}
        self._unpublished: list[Work] = []
        self._indexed = True
        self._published_at = time.monotonic()

    def run(self, arguments: Iterable[str | Path]) -> Counts:
        """Embed and publish everything that the arguments name and the archive lacks.

        A signal publishes what is complete and goes on its way (StoppedError). Errors of single
        inputs are counted and reported; a full disk and the like end the run, with everything
        published so far kept.
        """
        settings = self._settings
        self._write_record()
        with (
            Ledger(
                *(self._archive / CLAIMS, self._archive / RECORDS, "embed"),
                retries=settings.retries,
                only_failed=settings.only_failed,
                clean=self._clean,
            ) as ledger,
            ArchiveWriter(
                self._archive,
                format=settings.shard_format,
                run_id=self._run_id,
                store_paths=settings.store_paths,
            ) as writer,
        ):
            self._ledger, self._writer = ledger, writer
            self._preparation = Preparation(
                self._archive, settings.patches, replace=settings.replace
            )
            try:
                self._embed(arguments)
                self._publish()
                self._index()
                self._tell_of_patients()
            except (StoppedError, KeyboardInterrupt):
                with signals_deferred():
                    self._embedding.keep_complete_images(self._write)
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

    def _clean(self, text: str) -> str:
        """What may be kept of a sentence or name."""
        return text if self._settings.store_paths else str(without_folders(text))

    def _embed(self, arguments: Iterable[str | Path]) -> None:
        self._embed_units(self._listed(arguments))
        self._publish()  # only then is it known what is to be tried again
        while self._again:
            units, self._again = self._again, []
            self._looked_at_last = True
            self._embed_units(units)
            self._publish()

    def _embed_units(self, units: Iterable[WorkUnit]) -> None:
        self._embedding.run(self._works(units), self._write, self._after)

    def _listed(self, arguments: Iterable[str | Path]) -> Iterator[WorkUnit]:
        """The units that the arguments name; those of the run are all known when this ends."""
        wanted = self._ledger.failed_before() if self._settings.only_failed else None
        left = set(wanted or ())
        problems: dict[str, Problem] = {}

        def listed(units: list[str]) -> None:
            self._ledger.plan({*units, *problems})
            for name in problems.keys() - set(units):  # a slide of which one row is wrong is a unit
                self._ledger.settle(Outcome(name, "failed", problems[name].error, final=True))

        for unit in iter_units(iter_entries(arguments, split=self._settings.split), listed):
            if isinstance(unit, Problem):
                problems[unit.name] = unit
                left.discard(self._clean(unit.name))
                self._failed(unit)
                continue
            if wanted is not None:
                # A block is called otherwise when one of its images is new, a tile set that could
                # not be read by its path.
                files = (self._clean(str(entry.path)) for entry in unit.entries)
                names = {unit.name, *files, *(entry.name for entry in unit.entries)}
                left -= names
                if not names & wanted:
                    continue
            yield unit
        lost = sorted(name for name in left if not is_block(name))
        if lost:
            self._report.warning(
                f"what failed before is not among these sources any more: {', '.join(lost[:3])}"
                f"{' and others' if len(lost) > 3 else ''}; run the same command without "
                "--only-failed."
            )

    def _works(self, units: Iterable[WorkUnit]) -> Iterator[Work]:
        """What is left to do of units, which are this process's then."""
        for unit in units:
            wanted = self._preparation.look(unit)
            if wanted.unit is not None or wanted.problems:  # what is archived needs no claim
                refusal = self._ledger.take(unit.name)
                if refusal is not None:
                    self._refused(unit, refusal)
                    continue
                # Whoever had it before may have published it between the look and the claim.
                wanted = self._preparation.look(unit)
            if unit.name not in self._tried:  # what a first try has archived was not skipped
                self.counts.skipped += wanted.skipped
                self.counts.replaced += wanted.replaced
            self._tried.add(unit.name)
            self._elsewhose.update(dict.fromkeys(wanted.elsewhose))
            if wanted.unit is None and not wanted.problems:
                self._ledger.settle(Outcome(unit.name, "skipped"))
            else:
                yield Work(unit, wanted, list(wanted.problems))

    def _tell_of_patients(self) -> None:
        if self._elsewhose:
            first = next(iter(self._elsewhose))
            self._report.warning(
                f"sources that {self._archive} has under another patient, and keeps so: "
                f"{len(self._elsewhose)}; {first}: 'patchknn archive remove' them, and embed again."
            )

    def _refused(self, unit: WorkUnit, refusal: Outcome) -> None:
        if refusal.held and not self._looked_at_last:
            self._again.append(unit)
        elif refusal.status == "failed":
            self._failed(Problem(unit.name, refusal.detail))
        else:
            self.counts.held += len(unit.entries)
            if not refusal.held:
                self._report.warning(f"{unit.name}: {refusal.detail}")

    def _write(self, work: Work) -> None:
        """Take in what was embedded of a unit."""
        self.counts.empty += work.empty
        if work.rows is not None:
            with self._stopwatch.time("writing"):
                work.taken_in(self._writer, replace=self._settings.replace)
        if work.count:
            self._unpublished.append(work)
        else:  # nothing of it is to be published
            self._settle(work)

    def _after(self, patches: int) -> None:
        self.counts.patches += patches
        self._report.patches(patches)
        waiting = sum(work.count for work in self._unpublished)
        late = time.monotonic() - self._published_at >= self._settings.publish_seconds
        if waiting and (late or waiting >= self._settings.publish_rows):
            self._publish()
        self._index()

    def _publish(self) -> None:
        duplicates = self._writer.duplicates
        taken: dict[str, str] = {}
        with signals_deferred():
            try:
                with self._stopwatch.time("writing"):
                    self._indexed &= self._writer.publish() is None
            except SourcesTakenError as error:
                taken = error.sentences
                self._indexed = False
            works, self._unpublished = self._unpublished, []
            self.counts.rows += sum(work.count for work in works)
            self.counts.rows -= self._writer.duplicates - duplicates
            for work in works:
                work.leave_out(taken)
                self._settle(work)
            self.counts.sources += sum(work.sources for work in works)
            self._published_at = time.monotonic()

    def _settle(self, work: Work) -> None:
        """Say what became of a unit: done, or to be tried again, or failed for good."""
        if not work.complete:
            self._ledger.release(work.unit.name)
            return
        outcome = work.outcome()
        if not self._ledger.settle(outcome):
            self._again.append(work.unit)
            return
        for problem in work.problems:
            self._failed(problem)
        self._report.unit(outcome)

    def _index(self) -> None:
        """What was published is found without an index too, only later: a signal may end this."""
        if not self._indexed:
            self._indexed = True
            with self._stopwatch.time("indexing"):
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
