"""The report of an evaluation: its figures, and a gallery of some of its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.pictures import PictureFinder
from patchknn.evaluation.report.cards import Asked, Finders
from patchknn.evaluation.report.facts import archive_facts, search_facts, version_facts
from patchknn.evaluation.report.gallery import build_gallery
from patchknn.evaluation.report.parts import ReportData, Section
from patchknn.evaluation.report.sections import evaluation_sections
from patchknn.evaluation.report.told import answers_of
from patchknn.evaluation.report.words import word
from patchknn.search.answers import Answer
from patchknn.search.fields import NeighbourFields
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Sampled = tuple[Query, tuple[Answer, ...]]


class Elsewhere(NamedTuple):
    """What a method found in another archive, by the names of the queries."""

    method: str
    snapshot: Snapshot
    answers: Mapping[str, Answer]


class Shown(NamedTuple):
    """What the gallery is made of.

    ``sampled`` are queries with the answers of the first methods, in their order; what others
    found ``elsewhere`` is handed in, and that of the rest taken from their outcomes. ``patches``
    are where pictures of queries come from, by their ids; ``fields`` of records are put beside
    queries and neighbours.
    """

    sampled: Sequence[Sampled] = ()
    patches: Iterable[Patch] = ()
    elsewhere: Sequence[Elsewhere] = ()
    fields: NeighbourFields | None = None


def evaluation_report(
    snapshot: Snapshot,
    evaluations: Sequence[Evaluation],
    settings: SearchSettings,
    shown: Shown,
    *,
    made: datetime,
    slides_dir: Path | None = None,
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
    on_read: Callable[[], None] = lambda: None,
) -> ReportData:
    """Put together the page; ``sections`` of others follow the standard ones.

    ``slides_dir`` is where slides lie now. ``on_read`` is called after each query of the gallery.
    """
    first = evaluations[0]
    outcomes = first.outcomes
    patients = len(np.unique(outcomes.patient[outcomes.patient >= 0]))
    asked = (
        ("queries", word(len(outcomes))),
        ("their patients", word(patients) if patients else "unknown"),
    )
    gallery = None
    if shown.sampled:
        asked_about = _asked(snapshot, evaluations, shown)
        with ExitStack() as stack:

            def finder(of: Snapshot) -> PictureFinder:
                return stack.enter_context(PictureFinder(of, slides_dir))

            others = {one.method: finder(one.snapshot) for one in shown.elsewhere}
            gallery = build_gallery(
                asked_about,
                Finders(finder(snapshot), others),
                snapshot.classes,
                of=len(outcomes),
                unknown_is_wrong=True,
                on_read=on_read,
            )
    return ReportData(
        title=f"Evaluation of {snapshot.path.name}",
        facts=(
            *asked,
            *archive_facts(snapshot),
            *search_facts(settings, snapshot.settings.bits),
            *version_facts(made),
        ),
        notes=(*_lacks(first), *notes),
        sections=(*evaluation_sections(evaluations), *sections),
        gallery=gallery,
    )


def _asked(snapshot: Snapshot, evaluations: Sequence[Evaluation], shown: Shown) -> list[Asked]:
    queries = [query for query, _ in shown.sampled]
    count = len(shown.sampled[0][1])
    found = {one.method: one.answers for one in shown.elsewhere}
    columns: list[Sequence[Answer | None]] = list(
        zip(*(answers for _, answers in shown.sampled), strict=True)
    )
    for one in evaluations[count:]:
        if (answers := found.get(one.method)) is None:
            columns.append(answers_of(snapshot, one, queries))
        else:
            columns.append([answers.get(query.name) for query in queries])
    records: list[dict[str, Any]] = [{}] * len(queries)
    if shown.fields is not None:
        columns = [shown.fields.beside(column) for column in columns]
        records = shown.fields.records_of([(query.source, query.patient) for query in queries])
    wanted = {query.name for query in queries}
    patches = {patch.id: patch for patch in shown.patches if patch.id in wanted}
    asked = []
    for query, record, *answers in zip(queries, records, *columns, strict=True):
        told = [
            (one.method, answer)
            for one, answer in zip(evaluations, answers, strict=True)
            if answer is not None
        ]
        facts = (("patient", query.patient), *record.items())
        asked.append(Asked(tuple(told), query.row, patches.get(query.name), facts))
    return asked


def _lacks(first: Evaluation) -> list[str]:
    notes = [
        f"The archive lacks class {name}: its queries ({count}) count as wrong."
        for name, count in first.unknown_classes.items()
    ]
    if first.left_out:
        notes.append(f"Patches without a label were left out: {first.left_out}.")
    if first.failed:
        notes.append(f"Queries that could not be answered: {first.failed}.")
    unlabelled = first.settings.get("unlabelled_rows", 0)
    if unlabelled and not first.settings.get("labelled_only"):
        notes.append(
            f"{unlabelled} archived patches have no label; as neighbours they count as wrong."
        )
    return notes
