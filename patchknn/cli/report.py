"""``--report DIR`` of ``evaluate`` and ``query``: what is kept for the page, and its writing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.errors import UsageError
from patchknn.evaluation.sample import EvenSample
from patchknn.search.answers import Answer
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.datasets.patches import Patch
    from patchknn.evaluation.evaluation import Evaluation
    from patchknn.evaluation.report.evaluation_report import Elsewhere, Shown
    from patchknn.evaluation.report.parts import ReportData, Section
    from patchknn.evaluation.report.query_report import Worklist
    from patchknn.search.fields import NeighbourFields


class Sampling:
    """A sink of ``evaluate_all`` that keeps an even sample of the queries with their answers."""

    def __init__(self, count: int) -> None:
        self._sample: EvenSample[tuple[Query, tuple[Answer, ...]]] = EvenSample(count)
        self._elsewhere: list[Elsewhere] = []

    def __call__(self, query: Query, answers: Sequence[Answer]) -> None:
        """Take the next query."""
        self._sample.add((query, tuple(answers)))

    def elsewhere(self, method: str, snapshot: Snapshot) -> Callable[[Query, Answer], None]:
        """A sink for what a method finds in another archive, after the queries were sampled."""
        from patchknn.evaluation.report.evaluation_report import Elsewhere

        wanted = {query.name for query, _ in self._sample.items()}
        answers: dict[str, Answer] = {}
        self._elsewhere.append(Elsewhere(method, snapshot, answers))

        def keep(query: Query, answer: Answer) -> None:
            if query.name in wanted:
                answers[query.name] = answer

        return keep

    def shown(self, patches: Iterable[Patch], fields: NeighbourFields | None) -> Shown:
        """All that was kept, with what the gallery shows beside it."""
        from patchknn.evaluation.report.evaluation_report import Shown

        return Shown(self._sample.items(), patches, self._elsewhere, fields)


def check_report(folder: Path, queries: int) -> None:
    """Raise UsageError or ConflictError before anything is done for a report that cannot be."""
    from patchknn.evaluation.report.page import check_report_folder

    if queries < 1:
        message = f"--report-queries {queries} shows none: give 1 or more."
        raise UsageError(message)
    check_report_folder(folder)


def write_evaluation_report(
    folder: Path,
    snapshot: Snapshot,
    evaluations: Sequence[Evaluation],
    settings: SearchSettings,
    shown: Shown,
    slides: Path | None,
    sections: Sequence[Section] = (),
) -> None:
    """Write the page of ``evaluate``; ``sections`` of others follow the standard ones."""
    from patchknn.evaluation.report.evaluation_report import evaluation_report

    with console.ProgressBar(len(shown.sampled), "report", "queries") as bar:
        report = evaluation_report(
            snapshot,
            evaluations,
            settings,
            shown,
            made=datetime.now().astimezone(),
            slides_dir=slides,
            sections=sections,
            on_read=lambda: bar.advance(1),
        )
    _write(folder, report)


def write_query_report(
    folder: Path,
    snapshot: Snapshot,
    worklist: Worklist,
    settings: SearchSettings,
    slides: Path | None,
    notes: Sequence[str] = (),
) -> None:
    """Write the page of ``query``; nothing where no query was answered."""
    from patchknn.evaluation.report.query_report import query_report

    if not worklist.seen:
        console.warn(f"{folder} is not written: no query was answered.")
        return
    with console.ProgressBar(None, "report", "queries") as bar:
        report = query_report(
            snapshot,
            worklist,
            settings,
            made=datetime.now().astimezone(),
            slides_dir=slides,
            notes=notes,
            on_read=lambda: bar.advance(1),
        )
    _write(folder, report)


def _write(folder: Path, report: ReportData) -> None:
    from patchknn.evaluation.report.page import write_report

    page = write_report(folder, report)
    gallery = report.gallery
    if gallery is not None and gallery.missing:
        console.warn(
            f"{gallery.missing} pictures were not found for {page}: say --slides DIR where their "
            "images lie now."
        )
    shown = 0 if gallery is None else len(gallery.cards)
    of = "" if gallery is None or gallery.of == shown else f" of {gallery.of}"
    console.message(f"{page} is written; it shows {shown}{of} queries.")
