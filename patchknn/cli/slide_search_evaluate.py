"""``slide search --evaluate``: every labelled slide asks all others but its own patient's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.errors import InputError
from patchknn.evaluation.figures.intervals import bootstrap_intervals
from patchknn.evaluation.figures.metrics import accuracy, mean_class_recall
from patchknn.evaluation.figures.ranking import class_scores, confusion
from patchknn.evaluation.outcomes import Outcome, Outcomes
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings
from patchknn.wholeslide.mosaics.slide_answers import SlideAnswer
from patchknn.wholeslide.mosaics.slide_search import SlideSearcher

_COLUMNS = ("k", "mmv", "mmv_low", "mmv_high", "macro_f1", "mean_class_recall")


def run_evaluation(
    snapshot: Snapshot,
    searcher: SlideSearcher,
    mosaic: MosaicSettings,
    replicates: int,
    seed: int,
    format: str | None,
) -> int:
    """Evaluate and print; the exit code. InputError where there is nothing to be judged."""
    _check(snapshot, searcher)
    asking = [
        number
        for number, label in enumerate(searcher.labels)
        if label is not None and searcher.admitted[number]
    ]
    answers = []
    with console.ProgressBar(len(asking), "evaluate", "slides") as bar:
        for number in asking:
            answers.append(
                searcher.search(searcher.mosaics.mosaic(number), searcher.labels[number])
            )
            bar.advance()
    outcomes = {k: _outcomes(answers, k) for k in searcher.settings.majorities}
    rows = [_figures(k, one, replicates, seed) for k, one in outcomes.items()]
    classes = list(_class_rows(answers, outcomes))
    _warn_of_lonely(classes, searcher)
    style = console.output_format(format)
    if style != "ndjson":
        title = f"{len(answers)} slides, each without its {searcher.settings.exclude_same}"
        if searcher.settings.exclude_same == "none":
            title = f"{len(answers)} slides, each with itself among those that answer"
        console.write_rows(rows, _COLUMNS, style, title=title)
        if style == "table":
            console.write_rows(classes, list(classes[0]), style)
        return 0
    settings = searcher.settings
    figures = {
        f"{name}_at_{row['k']}": row[name]
        for row in rows
        for name in ("mmv", "macro_f1", "mean_class_recall")
    }
    intervals = {
        f"mmv_at_{row['k']}": [row["mmv_low"], row["mmv_high"]]
        for row in rows
        if row["mmv_low"] is not None
    }
    console.write_ndjson(
        {
            "archive": str(snapshot.path),
            "snapshot": snapshot.number,
            "n": len(answers),
            "patients": len({answer.patient for answer in answers} - {None}),
            "left_out": searcher.mosaics.n_slides - len(answers),
            "classes": [row["class"] for row in classes],
            "by": settings.by,
            "exclude_same": settings.exclude_same,
            "mosaic": mosaic._asdict(),
            **figures,
            "intervals": intervals,
            "per_class": classes,
            "confusion": {str(k): _confusion(one).as_json() for k, one in outcomes.items()},
        }
    )
    return 0


def _check(snapshot: Snapshot, searcher: SlideSearcher) -> None:
    mosaics = searcher.mosaics
    pairs = zip(searcher.labels, searcher.admitted.tolist(), strict=True)
    if not any(admitted and label is not None for label, admitted in pairs):
        message = (
            f"{snapshot.path} has no slide with a label that may answer, so nothing can be judged: "
            "give --labels or --label-field, or another --where."
        )
        raise InputError(message)
    if searcher.settings.exclude_same == "patient" and mosaics.patients.all_unknown():
        message = (
            f"{snapshot.path} names no patient, so a slide's own patient cannot be left out: give "
            "--exclude-same slide, or embed from a slide list with a 'patient' column."
        )
        raise InputError(message)


def _outcomes(answers: list[SlideAnswer], k: int) -> Outcomes:
    votes = [next(one for one in answer.majorities if one.k == k) for answer in answers]
    return Outcomes.of(
        (
            Outcome(
                query=answer.query,
                label=answer.label or "",
                prediction=vote.prediction,
                confidence=vote.confidence,
                neighbours=tuple(neighbour.label for neighbour in answer.neighbours[:k]),
                patient=answer.patient,
            )
            for answer, vote in zip(answers, votes, strict=True)
        ),
        k,
    )


def _confusion(outcomes: Outcomes) -> Any:
    return confusion(outcomes.label, outcomes.prediction, outcomes.classes)


def _figures(k: int, outcomes: Outcomes, replicates: int, seed: int) -> dict[str, Any]:
    """The figures of one k: the share of right majorities (mMV@k), its interval, macro F1."""
    interval = bootstrap_intervals(outcomes, replicates, seed).get("accuracy", (None, None))
    scores = class_scores(_confusion(outcomes)).values()
    return {
        "k": k,
        "mmv": accuracy(outcomes.label, outcomes.prediction),
        "mmv_low": interval[0],
        "mmv_high": interval[1],
        "macro_f1": float(np.mean([score.f1 for score in scores])),
        "mean_class_recall": mean_class_recall(outcomes.label, outcomes.prediction),
    }


def _class_rows(
    answers: list[SlideAnswer], outcomes: dict[int, Outcomes]
) -> Iterator[dict[str, Any]]:
    scores = {k: class_scores(_confusion(one)) for k, one in outcomes.items()}
    for name in sorted({answer.label for answer in answers if answer.label is not None}):
        own = [answer for answer in answers if answer.label == name]
        row: dict[str, Any] = {
            "class": name,
            "n": len(own),
            "patients": len({answer.patient or answer.query for answer in own}),
        }
        for k, by_class in scores.items():
            row[f"recall_at_{k}"], row[f"f1_at_{k}"] = by_class[name].recall, by_class[name].f1
        yield row


def _warn_of_lonely(classes: list[dict[str, Any]], searcher: SlideSearcher) -> None:
    if searcher.settings.exclude_same != "patient":
        return
    lonely = [row["class"] for row in classes if row["patients"] == 1]
    if lonely:
        console.warn(
            f"classes of one patient alone: {', '.join(lonely)}; their slides cannot be right, for "
            "no other patient has such a slide."
        )
