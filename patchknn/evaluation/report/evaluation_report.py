"""The report of an evaluation: its figures, and a gallery of some of its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.pictures import PictureFinder
from patchknn.evaluation.report.cards import Asked
from patchknn.evaluation.report.facts import archive_facts, search_facts, version_facts
from patchknn.evaluation.report.gallery import build_gallery
from patchknn.evaluation.report.parts import ReportData, Section
from patchknn.evaluation.report.sections import evaluation_sections
from patchknn.evaluation.report.told import answers_of
from patchknn.evaluation.report.words import word
from patchknn.search.answers import Answer
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Sampled = tuple[Query, tuple[Answer, ...]]


def evaluation_report(
    snapshot: Snapshot,
    evaluations: Sequence[Evaluation],
    settings: SearchSettings,
    *,
    sampled: Sequence[Sampled],
    patches: Iterable[Patch],
    made: datetime,
    slides_dir: Path | None = None,
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
    on_read: Callable[[], None] = lambda: None,
) -> ReportData:
    """Put together the page; ``sections`` of others follow the standard ones.

    ``sampled`` are queries with the answers of the first evaluations, in their order; the answers
    of the others are taken from their outcomes. ``patches`` are where pictures of queries come
    from, by their ids; ``slides_dir`` is where slides lie now. ``on_read`` is called after each
    query of the gallery.
    """
    first = evaluations[0]
    outcomes = first.outcomes
    patients = len(np.unique(outcomes.patient[outcomes.patient >= 0]))
    asked = (
        ("queries", word(len(outcomes))),
        ("their patients", word(patients) if patients else "unknown"),
    )
    gallery = None
    if sampled:
        wanted = {query.name for query, _ in sampled}
        by_id = {patch.id: patch for patch in patches if patch.id in wanted}
        with PictureFinder(snapshot, slides_dir) as finder:
            asked_about = _asked(snapshot, evaluations, sampled, by_id)
            classes, of = snapshot.classes, len(outcomes)
            gallery = build_gallery(
                asked_about, finder, classes, of=of, unknown_is_wrong=True, on_read=on_read
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


def _asked(
    snapshot: Snapshot,
    evaluations: Sequence[Evaluation],
    sampled: Sequence[Sampled],
    patches: Mapping[str, Patch],
) -> list[Asked]:
    queries = [query for query, _ in sampled]
    count = len(sampled[0][1])
    methods = [one.method for one in evaluations]
    others = [answers_of(snapshot, one, queries) for one in evaluations[count:]]
    asked = []
    for number, (query, answers) in enumerate(sampled):
        told = list(zip(methods, answers, strict=False))
        for one, found in zip(methods[count:], others, strict=True):
            answer = found[number]
            if answer is not None:
                told.append((one, answer))
        facts = [("patient", query.patient)]
        asked.append(Asked(tuple(told), query.row, patches.get(query.name), tuple(facts)))
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
