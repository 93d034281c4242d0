"""What ``query`` makes beside its answers: a montage, a page, predictions on the slides."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.cli.query_asked import Asked
from patchknn.cli.query_output import AnswerWriter
from patchknn.cli.query_wanted import Wanted
from patchknn.evaluation.sample import EvenSample
from patchknn.search.answers import Answer
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

_MONTAGE_ROWS = 20


class Beside(Protocol):
    """Takes answers as they come, and makes something of them in the end."""

    def add(self, asked: Asked, answer: Answer) -> None:
        """Take one answer."""

    def finish(self, writer: AnswerWriter) -> bool:
        """Write it, after all answers; whether all of it could be."""


def beside_answers(
    snapshot: Snapshot, settings: SearchSettings, wanted: Wanted, default_mpp: float | None
) -> list[Beside]:
    """All that is wanted."""
    beside: list[Beside] = []
    if wanted.montage is not None:
        beside.append(_Montage(snapshot, wanted.montage, wanted.slides))
    if wanted.report is not None:
        beside.append(_Page(snapshot, settings, wanted.report, wanted))
    if wanted.overlay is not None or wanted.geojson is not None:
        from patchknn.cli.query_slides import OnSlides

        beside.append(OnSlides(snapshot, wanted.overlay, wanted.geojson, default_mpp))
    return beside


class _Montage:
    def __init__(self, snapshot: Snapshot, path: Path, slides: Path | None) -> None:
        self._snapshot, self._path, self._slides = snapshot, path, slides
        self._drawn: EvenSample[tuple[Asked, Answer]] = EvenSample(_MONTAGE_ROWS)

    def add(self, asked: Asked, answer: Answer) -> None:
        self._drawn.add((asked, answer))

    def finish(self, _: AnswerWriter) -> bool:
        from patchknn.evaluation.montage import draw_montage
        from patchknn.evaluation.pictures import PictureFinder

        shown, seen = self._drawn.items(), self._drawn.seen
        if not shown:
            console.warn(f"{self._path} is not drawn: no query was answered.")
            return True
        with PictureFinder(self._snapshot, self._slides) as finder:
            pictures = []
            for asked, _answer in shown:
                if isinstance(asked.query, Query) and asked.query.row is not None:
                    pictures.append(finder.of_row(asked.query.row))
                else:
                    pictures.append(None if asked.patch is None else finder.of_patch(asked.patch))
        answers = [answer for _asked, answer in shown]
        draw_montage(answers, self._snapshot, self._path, pictures, self._slides, of=seen)
        more = f" ({len(shown)} of {seen} answers)" if len(shown) < seen else ""
        console.message(f"{self._path} is drawn{more}.")
        return True


class _Page:
    def __init__(
        self, snapshot: Snapshot, settings: SearchSettings, folder: Path, wanted: Wanted
    ) -> None:
        from patchknn.evaluation.report.query_report import Worklist

        self._snapshot, self._settings = snapshot, settings
        self._folder, self._slides = folder, wanted.slides
        self._worklist = Worklist(wanted.report_queries)

    def add(self, asked: Asked, answer: Answer) -> None:
        query = asked.query
        row, patient = (query.row, query.patient) if isinstance(query, Query) else (None, None)
        self._worklist.add(answer, row, asked.patch, patient)

    def finish(self, writer: AnswerWriter) -> bool:
        from patchknn.cli.report import write_query_report

        notes = []
        if writer.skipped:
            notes.append(f"Queries that were answered before are not shown: {writer.skipped}.")
        if writer.failed:
            notes.append(f"Queries that could not be answered: {writer.failed}.")
        write_query_report(
            *(self._folder, self._snapshot, self._worklist, self._settings, self._slides), notes
        )
        return True
