"""The report of queries whose classes nobody knows yet: a worklist, the least sure first."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.evaluation.evaluate import METHOD
from patchknn.evaluation.pictures import PictureFinder
from patchknn.evaluation.report.cards import Asked, Finders, sureness
from patchknn.evaluation.report.facts import archive_facts, search_facts, version_facts
from patchknn.evaluation.report.figures import confidence_histogram
from patchknn.evaluation.report.gallery import build_gallery
from patchknn.evaluation.report.parts import ReportData, Section, Table
from patchknn.evaluation.report.words import percent, word
from patchknn.search.answers import Answer
from patchknn.search.settings import SearchSettings


class Worklist:
    """Keeps the least sure of many answers, and counts them all."""

    def __init__(self, count: int) -> None:
        self.seen = 0
        self.calibrated = False
        self.predictions: Counter[str | None] = Counter()
        self.for_review: Counter[str | None] = Counter()
        self.confidences: dict[str | None, array[float]] = {}
        self._count = count
        self._kept: list[tuple[float, int, Asked]] = []

    def add(
        self,
        answer: Answer,
        row: int | None = None,
        patch: Patch | None = None,
        patient: str | None = None,
    ) -> None:
        """Take an answer; its query is of ``patient``, where that is known.

        The query's picture is that of the archived ``row``, or of ``patch``.
        """
        self.seen += 1
        self.predictions[answer.prediction] += 1
        self.for_review[answer.prediction] += answer.abstained
        confidence = sureness(answer)
        self.calibrated = self.calibrated or answer.judgement is not None
        own = self.confidences.setdefault(answer.prediction, array("d"))
        own.append(max(confidence, 0.0))
        # The heap's first is the surest of those kept, of equals the one that came last.
        asked = Asked(((METHOD, answer),), row, patch, (("patient", patient),))
        entry = (-confidence, -self.seen, asked)
        if len(self._kept) < self._count:
            heapq.heappush(self._kept, entry)
        elif self._kept and entry > self._kept[0]:
            heapq.heapreplace(self._kept, entry)

    def items(self) -> list[Asked]:
        """Those kept, the least sure first, equals in the order in which they came."""
        return [asked for _, _, asked in sorted(self._kept, key=lambda one: (-one[0], -one[1]))]


def query_report(
    snapshot: Snapshot,
    worklist: Worklist,
    settings: SearchSettings,
    *,
    made: datetime,
    slides_dir: Path | None = None,
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
    on_read: Callable[[], None] = lambda: None,
) -> ReportData:
    """Put together the page; ``slides_dir`` is where slides lie now."""
    gallery = None
    if worklist.seen:
        with PictureFinder(snapshot, slides_dir) as finder:
            shown, finders = worklist.items(), Finders(finder)
            gallery = build_gallery(
                shown, finders, snapshot.classes, of=worklist.seen, on_read=on_read
            )
    return ReportData(
        title=f"Queries to {snapshot.path.name}, the least sure first",
        facts=(
            ("queries", word(worklist.seen)),
            *archive_facts(snapshot),
            *search_facts(settings, snapshot.settings.bits, calibrated=worklist.calibrated),
            *version_facts(made),
        ),
        notes=tuple(notes),
        sections=(*((_predictions(worklist),) if worklist.seen else ()), *sections),
        gallery=gallery,
    )


def _predictions(worklist: Worklist) -> Section:
    rows = []
    for name, count in worklist.predictions.most_common():
        own = np.frombuffer(worklist.confidences[name])
        review = worklist.for_review[name]
        rows.append((name or "no votes", count, percent(float(own.mean())), review))
    everything = np.concatenate([np.frombuffer(own) for own in worklist.confidences.values()])
    means = (
        "it is calibrated, how probable the prediction is to be right"
        if worklist.calibrated
        else "it is the share of the neighbours that are of the predicted class"
    )
    return Section(
        "Predictions",
        f"What the neighbours voted for, and with what confidence: {means}.",
        Table(("predicted class", "queries", "mean confidence", "for review"), tuple(rows)),
        confidence_histogram(everything),
    )
