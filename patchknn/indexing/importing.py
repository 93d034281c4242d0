"""``archive import``: features made elsewhere become rows of an archive, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchknn.archive.rows import Rows, Source
from patchknn.archive.settings import SETTINGS_FILE
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import Bundle
from patchknn.datasets.patches import Problem
from patchknn.datasets.stored_labels import Unmatched
from patchknn.errors import ConflictError, PatchknnError, StoppedError
from patchknn.indexing.import_content import PartSources
from patchknn.indexing.import_fit import Fit, head_of, misfit
from patchknn.indexing.import_parts import Found, iter_parts
from patchknn.indexing.import_prepare import ImportSettings
from patchknn.indexing.signals import signals_deferred

_PIECE = 16_384  # rows that are hashed at once: in float64 they are four times as large


@dataclass
class ImportCounts:
    """What came of it, in sources except ``rows`` and ``unmatched_labels`` (rows of the table).

    ``scaled``: sources whose positions were in µm; ``number`` of the last snapshot published.
    """

    rows: int = 0
    sources: int = 0
    skipped: int = 0
    empty: int = 0
    failed: int = 0
    unmatched_labels: int = 0
    scaled: int = 0
    number: int | None = None


class Importer:
    """One process's import into an archive that ``prepare_import`` made ready.

    ``failed`` is given a sentence for each input that is left out, ``warned`` one for rows of the
    table of labels that mean nothing here. A ``dry_run`` reads everything and writes nothing.
    """

    def __init__(
        self,
        archive: Path,
        fit: Fit,
        settings: ImportSettings,
        *,
        failed: Callable[[str], None],
        warned: Callable[[str], None],
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.counts = ImportCounts()
        self._archive, self._fit, self._settings = archive, fit, settings
        self._failed, self._warned, self._done = failed, warned, done
        self._taken: dict[str, tuple[int, bytes, Path]] = {}
        self._bundle: Bundle | None = None
        self._is_whole = True  # what the writer holds are whole sources

    def run(self, *, run_id: str | None = None, dry_run: bool = False) -> ImportCounts:
        """Import what the archive lacks, file by file; a source comes whole or not at all.

        A signal publishes what is complete and goes on its way (StoppedError). Errors of single
        files are counted and told; a full disk and the like end the run.
        """
        if dry_run:
            is_there = (self._archive / SETTINGS_FILE).is_file()
            snapshot = open_archive(self._archive) if is_there else None
            for part in self._parts():
                self._import(part, snapshot, None)
            return self.counts
        with ArchiveWriter(
            self._archive, format=self._settings.shard_format, run_id=run_id, action="import"
        ) as writer:
            try:
                self._write_all(writer)
            except (StoppedError, KeyboardInterrupt):
                if self._is_whole:
                    with signals_deferred():
                        self._publish(writer)
                raise
        return self.counts

    def _write_all(self, writer: ArchiveWriter) -> None:
        published = time.monotonic()
        snapshot = open_archive(self._archive)
        self._bundle = snapshot.bundle()
        for part in self._parts():
            self._import(part, snapshot, writer)
            if time.monotonic() - published >= self._settings.publish_seconds:
                with signals_deferred():
                    self._publish(writer)
                snapshot, published = open_archive(self._archive), time.monotonic()
        with signals_deferred():
            self._publish(writer)

    def _parts(self) -> Iterator[Found]:
        return iter_parts(self._settings.reading, self._fail, self._unmatched)

    def _fail(self, problem: Problem) -> None:
        self.counts.failed += 1
        self._failed(problem.error)

    def _unmatched(self, problem: Unmatched) -> None:
        self.counts.unmatched_labels += problem.rows
        self._warned(problem.error)

    def _import(
        self, found: Found, snapshot: Snapshot | None, writer: ArchiveWriter | None
    ) -> None:
        part = found.part
        try:
            if not len(part):
                self.counts.empty += 1
                return
            problem = misfit(head_of(found), self._fit, self._settings.asked)
            if problem is not None:
                raise ConflictError(problem)
            sources = PartSources(found)
            wanted = self._wanted(sources, snapshot)
        except (PatchknnError, OSError) as error:
            self._fail(Problem(str(part.origin.path), _sentence(error, part.origin.path)))
            return
        new = [source is not None for source in wanted]
        if any(new):
            kept = np.array(new)[sources.source]
            if writer is not None and self._bundle is not None:
                self._is_whole = False
                self._write(sources, wanted, kept, writer, self._bundle)
                self._is_whole = True
            self.counts.rows += int(kept.sum())
            self.counts.sources += sum(new)
            self.counts.scaled += sum(new) if found.figures.is_scaled else 0
        self._done(len(part))

    def _wanted(self, sources: PartSources, snapshot: Snapshot | None) -> list[Source | None]:
        """The sources to be written by their numbers, None where one is there or cannot be."""
        problems = sources.misplaced()
        records = sources.by_file()
        choices = None if records is None else self._new(records, sources, snapshot, problems)
        if choices is not None and not any(choices):
            return choices  # nothing of it need be read
        asked = self._settings.asked.feature_dtype is not None
        wrong, digests = sources.look(self._fit.feature_dtype, may_round=asked)
        if choices is None:
            problems |= wrong
            return self._new(sources.by_rows(digests), sources, snapshot, problems)
        for number, text in wrong.items():
            if choices[number] is not None:
                self._forget(choices, number, text)
        return choices

    def _new(
        self,
        records: list[Source],
        sources: PartSources,
        snapshot: Snapshot | None,
        problems: dict[int, str],
    ) -> list[Source | None]:
        there = {} if snapshot is None else snapshot.find_sources([s.name for s in records])
        choices: list[Source | None] = []
        for number, record in enumerate(records):
            path = sources.part.origin.path
            known = there.get(record.name)
            size, content, owner = self._taken.get(record.name, (0, b"", path))
            if known is not None:
                size, content, owner = known.size, known.quickhash, self._archive
            if content and (size, content) == (record.size, record.quickhash):
                self.counts.skipped += 1
            elif content:
                text = _other_content(path, record.name, owner, is_archived=known is not None)
                self._fail(Problem(record.name, text))
            elif number in problems:
                self._fail(Problem(record.name, problems[number]))
            else:
                self._taken[record.name] = (record.size, record.quickhash, path)
                choices.append(record)
                continue
            choices.append(None)
        return choices

    def _forget(self, choices: list[Source | None], number: int, text: str) -> None:
        record, choices[number] = choices[number], None
        if record is not None:
            del self._taken[record.name]
            self._fail(Problem(record.name, text))

    def _write(
        self,
        sources: PartSources,
        wanted: list[Source | None],
        kept: np.ndarray[tuple[int], np.dtype[np.bool_]],
        writer: ArchiveWriter,
        bundle: Bundle,
    ) -> None:
        labels = sources.part.labels
        numbers: dict[str, int] = {}
        label = np.array(
            [-1 if text is None else numbers.setdefault(text, len(numbers)) for text in labels],
            np.int32,
        )
        # Those that are not wanted have no rows: any record serves in their place.
        some = next(source for source in wanted if source is not None)
        records = tuple(source or some for source in wanted)
        for start, block in sources.blocks():
            for first in range(0, len(block), _PIECE):
                piece = block[first : first + _PIECE]
                rows = slice(start + first, start + first + len(piece))
                keep = kept[rows]
                features = piece[keep].astype(self._fit.feature_dtype, copy=False)
                if not len(features):
                    continue
                writer.add(
                    Rows(
                        features=features,
                        codes=bundle.codes(features),
                        coords=sources.coords[rows][keep],
                        source=sources.source[rows][keep],
                        labels=label[rows][keep],
                        sources=records,
                        classes=tuple(numbers),
                    )
                )

    def _publish(self, writer: ArchiveWriter) -> None:
        before = writer.duplicates
        try:
            number = writer.publish()
        except ConflictError as error:  # another process was faster with other content
            self._fail(Problem(str(self._archive), str(error)))
            number = open_archive(self._archive).number
        self.counts.rows -= writer.duplicates - before
        self.counts.number = self.counts.number if number is None else number


def _sentence(error: PatchknnError | OSError, path: Path) -> str:
    if isinstance(error, PatchknnError):
        return str(error)
    return f"{error.filename or path}: {error.strerror or error}."


def _other_content(path: Path, name: str, owner: Path, *, is_archived: bool) -> str:
    if is_archived:
        return (
            f"{path} holds other features of {name!r} than {owner} does: give the file another "
            f"name, or take the old ones out first by 'patchknn archive remove {owner} --slide "
            f"{name}'."
        )
    return f"{path} and {owner} both hold features of {name!r}: give one of them."
