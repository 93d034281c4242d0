"""What ``slide search`` does once its command line is read: mosaics, labels, answers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.mosaics import Mosaic, Mosaics
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.query_asked import ImageSettings
from patchknn.cli.slide_search_labels import SlideLabels
from patchknn.cli.slide_search_output import SlideAnswerWriter
from patchknn.errors import InputError, UsageError
from patchknn.jobs.cpus import available_cpus
from patchknn.search.answers import Failure
from patchknn.wholeslide.mosaics.kept_mosaics import mosaics_of_archive
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings
from patchknn.wholeslide.mosaics.slide_answers import SlideAnswer
from patchknn.wholeslide.mosaics.slide_search import SlideSearcher, SlideSearchSettings

if TYPE_CHECKING:
    from patchknn.search.fields import NeighbourFields

_STDIN = "-"
Asked = tuple[Mosaic, str | None]


class Wanted(NamedTuple):
    """Which slides ask, what they are called, and how it is told.

    ``slides`` are files, ``names`` archived ones; ``bootstrap`` draws of patients by ``seed`` for
    the intervals of an evaluation; ``at`` a snapshot that is not the newest. ``patient`` is whose
    ``slides`` are. ``where`` is an expression over the records of slides that may answer,
    ``fields`` are put beside them.
    """

    slides: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    evaluate: bool = False
    labels: Path | None = None
    label_field: str | None = None
    bootstrap: int = 0
    seed: int = 0
    at: int | None = None
    patient: str | None = None
    where: str | None = None
    fields: tuple[str, ...] = ()
    format: str | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be asked together."""
        if self.evaluate and (self.slides or self.names):
            message = "--evaluate lets the archived slides ask: leave SLIDES and --slide away."
            raise UsageError(message)
        if self.evaluate and self.fields:
            message = "--fields stand beside neighbours, which --evaluate does not show."
            raise UsageError(message)
        if [*self.slides, *self.names].count(_STDIN) > 1:
            message = "stdin ('-') can be read only once."
            raise UsageError(message)
        if self.patient is not None and not self.slides:
            message = "--patient says whose SLIDES are: archived slides have theirs."
            raise UsageError(message)
        if self.labels is not None and self.label_field is not None:
            message = "--labels and --label-field both say what slides are called: give one."
            raise UsageError(message)


def run_slide_search(
    archive: Path,
    mosaic: MosaicSettings,
    settings: SlideSearchSettings,
    images: ImageSettings,
    wanted: Wanted,
) -> int:
    """Answer, or evaluate; the exit code."""
    wanted.check()
    snapshot = open_archive(archive, wanted.at)
    labels = SlideLabels(snapshot, wanted.labels, wanted.label_field)
    mosaics = _mosaics(snapshot, mosaic)
    if wanted.evaluate:
        settings = settings._replace(matches=0)
    admitted = None
    if wanted.where is not None:
        from patchknn.wholeslide.mosaics.slide_where import slides_where

        admitted = slides_where(snapshot, wanted.where, list(mosaics.names))
    known = labels.of_archive(mosaics)
    searcher = SlideSearcher(mosaics, known, settings, available_cpus(), admitted)
    labels.warn()
    if wanted.evaluate:
        from patchknn.cli.slide_search_evaluate import run_evaluation

        draws = (wanted.bootstrap, wanted.seed)
        return run_evaluation(snapshot, searcher, mosaic, *draws, wanted.format)
    fields = None
    if wanted.fields:
        from patchknn.search.fields import NeighbourFields

        fields = NeighbourFields(snapshot, wanted.fields)
    asked = _asked(snapshot, searcher, labels, mosaic, images, wanted)
    return _answer(searcher, asked, fields, wanted)


def _mosaics(snapshot: Snapshot, settings: MosaicSettings) -> Mosaics:
    with console.ProgressBar(snapshot.n_sources, "mosaics", "slides") as bar:
        kept = mosaics_of_archive(snapshot, settings, threads=available_cpus(), advance=bar.advance)
    if kept.problem is not None:
        console.warn(kept.problem)
    if not kept.mosaics.n_slides:
        remedy = (
            "'patchknn query' compares those" if len(snapshot) else "'patchknn embed' adds some"
        )
        what = "plain images alone, and no slide" if len(snapshot) else "no slide"
        message = f"{snapshot.path} holds {what}: {remedy}."
        raise InputError(message)
    return kept.mosaics


def _answer(
    searcher: SlideSearcher,
    asked: Iterable[Asked | Failure],
    fields: NeighbourFields | None,
    wanted: Wanted,
) -> int:
    names = () if fields is None else fields.names
    writer = SlideAnswerWriter(console.output_format(wanted.format), searcher.settings, names)
    by_patient = searcher.settings.exclude_same == "patient"
    unknown: list[str] = []
    total = None if wanted.slides else len(wanted.names) or searcher.mosaics.n_slides
    with console.ProgressBar(total, "search", "slides", beside_stdout=True) as bar:
        for one in asked:
            if isinstance(one, Failure):
                writer.write(one)
            else:
                query, label = one
                if by_patient and not searcher.patients_of(query):
                    unknown.append(query.name)
                writer.write(_with_fields(searcher.search(query, label), fields))
            bar.advance()
    if unknown:
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        console.warn(
            f"the patient of {unknown[0]}{others} is not known, so that other slides of the same "
            "patient may have answered: give --patient, or a list with a patient column."
        )
    return writer.exit_code


def _with_fields(answer: SlideAnswer, fields: NeighbourFields | None) -> SlideAnswer:
    if fields is None:
        return answer
    records = fields.records_of([(one.slide, one.patient) for one in answer.neighbours])
    pairs = zip(answer.neighbours, records, strict=True)
    return answer._replace(neighbours=tuple(one._replace(fields=told) for one, told in pairs))


def _asked(
    snapshot: Snapshot,
    searcher: SlideSearcher,
    labels: SlideLabels,
    mosaic: MosaicSettings,
    images: ImageSettings,
    wanted: Wanted,
) -> Iterator[Asked | Failure]:
    """The slides that ask, with their own label where it is known."""
    mosaics = searcher.mosaics
    names: Iterable[str] = _given(wanted.names)
    if not wanted.names and not wanted.slides:
        names = mosaics.names
    for name in names:
        number = searcher.number_of(name)
        if number is None:
            yield Failure(name, _no_such_slide(snapshot, name, mosaics))
        else:
            yield mosaics.mosaic(number), searcher.labels[number]
    if wanted.slides:
        from patchknn.cli.slide_search_files import file_mosaics

        for one in file_mosaics(snapshot, _given(wanted.slides), mosaic, images):
            if isinstance(one, Failure):
                yield one
            else:
                yield one.mosaic, labels.of_file(one)


def _given(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == _STDIN:
            yield from console.stdin_lines()
        else:
            yield argument


def _no_such_slide(snapshot: Snapshot, name: str, mosaics: Mosaics) -> str:
    close = difflib.get_close_matches(name, list(mosaics.names), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "'patchknn archive list' shows all."
    return f"{name!r} is no slide of {snapshot.path}; {hint}"
