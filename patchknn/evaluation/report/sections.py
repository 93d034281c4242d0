"""The sections of an evaluation: tables and figures of its methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.report import figures
from patchknn.evaluation.report.comparison import comparison_section
from patchknn.evaluation.report.explanations import EXPLANATIONS, Explanation
from patchknn.evaluation.report.figures import Judged
from patchknn.evaluation.report.parts import SHADES, Cell, Section, Table
from patchknn.evaluation.report.words import NOTHING, number, percent, word

_MOST_CLASSES = 24  # in a picture of all; what there is more has its table
_MOST_CONFUSIONS = 30
_NOTHING: dict[str, Any] = {}
_OF_A_CLASS = (
    ("recall", "recall"),
    ("precision", "precision"),
    ("true neighbours", "precision_at_k"),
)
_NOT_COMPARED = frozenset({"n", "k", "classes", "smallest_class", "patients"})


def evaluation_sections(evaluations: Sequence[Evaluation]) -> list[Section]:
    """The standard parts of the page, the first method being the one that is asked about."""
    reports = [one.as_json() for one in evaluations]
    sections = [
        figures_section(reports),
        comparison_section(reports),
        classes_section(evaluations),
        confusion_section(evaluations[0]),
        _neighbours_section(evaluations),
        *_confidence_sections(evaluations),
    ]
    return [section for section in sections if section is not None]


def figures_section(reports: Sequence[dict[str, Any]]) -> Section:
    """Methods beside each other, from ``Evaluation.as_json()``; the best of a line is bold.

    A figure that none of them has is left out, one that is not known here goes by its own name.
    """
    rows = []
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report.get(name) for report in reports]
        if name in _NOT_COMPARED or not any(_is_number(value) for value in values):
            continue
        if name not in EXPLANATIONS and any(isinstance(v, dict | list | str) for v in values):
            continue
        if name in {"failed", "left_out"}:
            continue
        known = EXPLANATIONS.get(name, Explanation(name.replace("_", " "), "", "number", 0))
        best = _best(values, known.better)
        cells = [
            Cell(
                _said(value, known),
                _interval(report, name, known),
                strong=best is not None and value == best,
            )
            for value, report in zip(values, reports, strict=True)
        ]
        rows.append((Cell(_titled(name, known, reports[0]), known.sentence), *cells))
    first = reports[0]
    return Section(
        "Figures",
        f"What {number(first['n'])} queries came to, each judged by its {first['k']} nearest "
        "archived patches.",
        Table(("figure", *(str(report["method"]) for report in reports)), tuple(rows)),
    )


def classes_section(evaluations: Sequence[Evaluation]) -> Section:
    """Queries, recall and true neighbours of each class, by method."""
    by_method = [{row["class"]: row for row in one.class_rows()} for one in evaluations]
    classes = sorted(set().union(*by_method))
    figures_of = [
        (name, key)
        for name, key in _OF_A_CLASS
        if any(key in row for rows in by_method for row in rows.values())
    ]
    columns = ["class", "queries"]
    for one in evaluations:
        of = f", {one.method}" if len(evaluations) > 1 else ""
        columns += [f"{name}{of}" for name, _ in figures_of]
    rows = []
    for name in classes:
        shares = [
            percent(held.get(name, _NOTHING).get(key))
            for held in by_method
            for _, key in figures_of
        ]
        rows.append((name, next(held[name]["n"] for held in by_method if name in held), *shares))
    recalls = [
        (one.method, [held.get(name, _NOTHING).get("recall", np.nan) for name in classes])
        for one, held in zip(evaluations, by_method, strict=True)
    ]
    drawn = figures.recall_figure(classes, recalls) if len(classes) <= _MOST_CLASSES else None
    return Section(
        "Classes",
        "Recall is the share of a class's queries that were recognised as such; precision the "
        "share of what was called so that is so; true neighbours the share of the neighbours "
        "that are of the same class.",
        Table(tuple(columns), tuple(rows)),
        drawn,
    )


def confusion_section(evaluation: Evaluation) -> Section:
    """Which classes are taken for which; of many classes the most frequent confusions."""
    outcomes = evaluation.outcomes
    names = outcomes.classes
    # Predicted classes may be none of the queries': those of the archive follow.
    held = np.zeros((len(names), len(names) + 1), np.int64)
    np.add.at(held, (outcomes.label, outcomes.prediction), 1)  # -1, no prediction, is the last
    rows_of = [n for n in range(len(names)) if held[n].any()]
    columns_of = [n for n in range(len(names)) if held[:, n].any() or n in rows_of]
    order = sorted(columns_of, key=lambda n: names[n])
    text = f"By {evaluation.method}: how many queries of each true class were taken for which."
    if len(order) > _MOST_CLASSES:
        return Section("Confusions", text, _frequent(held, names))
    unpredicted = held[:, -1].any()
    rows = []
    for true in sorted(rows_of, key=lambda n: names[n]):
        total = held[true].sum()
        places = [*order, -1] if unpredicted else order
        cells = []
        for place in places:
            count = int(held[true, place])
            shade = max(1, round(SHADES * count / total)) if count else 0
            cells.append(Cell(count, percent(count / total) if count else "", shade, place == true))
        rows.append((names[true], *cells))
    columns = ["true class, taken for", *(names[n] for n in order)]
    return Section(
        "Confusion matrix",
        f"{text} The darker, the larger the share of the row; right answers are bold.",
        Table(tuple([*columns, "no votes"] if unpredicted else columns), tuple(rows)),
    )


def _frequent(held: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str]) -> Table:
    named = [*names, "no votes"]
    wrong = [
        (int(held[t, p]), names[t], named[p], int(held[t].sum()))
        for t, p in np.argwhere(held).tolist()
        if t != p
    ]
    wrong.sort(key=lambda entry: (-entry[0], entry[1:]))
    rows = tuple(
        (true, found, count, percent(count / total))
        for count, true, found, total in wrong[:_MOST_CONFUSIONS]
    )
    caption = f"the {len(rows)} most frequent of {len(wrong)} confusions"
    return Table(("true class", "taken for", "queries", "of the class"), rows, caption)


def _neighbours_section(evaluations: Sequence[Evaluation]) -> Section:
    k = evaluations[0].k
    counts = [(one.method, one.outcomes.true_neighbours) for one in evaluations if one.k == k]
    return Section(
        "True neighbours",
        f"How many of the {k} archived patches shown beside a query are of its own class: the "
        "further right, the purer the neighbourhoods (Peng et al. 2019, Fig. 2).",
        figure=figures.true_neighbours_figure(counts, k),
    )


def _confidence_sections(evaluations: Sequence[Evaluation]) -> list[Section]:
    votes = [Judged(one.method, *_confidence(one)) for one in evaluations]
    batches = figures.confidence_figure(votes)
    first = evaluations[0].outcomes
    others = list(votes)
    if not np.isnan(first.weighted_confidence).all():
        by_distance = np.nan_to_num(first.weighted_confidence)
        others.append(Judged(f"{votes[0].method}, by distance", by_distance, first.correct))
    sure = ~np.isnan(first.probability)
    if sure.all():
        right = first.correct_by_classifier > 0
        others.append(Judged("the encoder's classifier", first.probability, right))
    sections = []
    if batches is not None:
        sections.append(
            Section(
                "Accuracy against confidence",
                "Queries in order of confidence, fifty by fifty. Where surer answers are more "
                "often right, confidence can be trusted to find the cases for review (Peng et al. "
                "2019, Fig. 3).",
                figure=batches,
            )
        )
    sections.append(
        Section(
            "Reliability",
            "Of the answers of one confidence, how many are right? On the dashed line 80 % sure "
            "means right in 80 of 100 cases; below it answers are too sure of themselves.",
            _bins_table(evaluations[0]),
            figures.reliability_figure(votes),
        )
    )
    sections.append(
        Section(
            "Setting aside the unsure",
            "If an expert takes over the least sure queries, how many of the others are wrong? "
            "From right to left fewer are answered; a curve that falls quickly is a confidence "
            "that knows where it errs.",
            figure=figures.risk_coverage_figure(others),
        )
    )
    return sections


def _bins_table(evaluation: Evaluation) -> Table:
    rows = tuple(
        (
            f"{row['low']:.0%} to {row['high']:.0%}".replace("%", " %"),
            row["n"],
            percent(row["confidence"]),
            percent(row["accuracy"]),
        )
        for row in evaluation.confidence_rows()
        if row["n"]
    )
    return Table(("confidence", "queries", "mean", "right"), rows, evaluation.method)


def _confidence(one: Evaluation) -> tuple[Any, Any]:
    return np.nan_to_num(one.outcomes.confidence), one.outcomes.correct


def _titled(name: str, known: Explanation, report: dict[str, Any]) -> str:
    if name == "recall_smallest_class" and report.get("smallest_class") is not None:
        return f"{known.name}, {report['smallest_class']}"
    return known.name


def _said(value: Any, known: Explanation) -> str:
    if not _is_number(value):
        return NOTHING if value is None else word(value)
    return percent(value) if known.kind == "share" else number(value)


def _interval(report: dict[str, Any], name: str, known: Explanation) -> str:
    """The ends of an interval, where the report has some of this figure."""
    ends = report.get("intervals", {}).get(name)
    return "" if ends is None else " to ".join(_said(end, known) for end in ends)


def _best(values: Sequence[Any], better: int) -> float | None:
    numbers = [value for value in values if _is_number(value)]
    if better == 0 or len(numbers) < 2 or len(set(numbers)) < 2:
        return None
    return float(max(numbers) if better > 0 else min(numbers))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
