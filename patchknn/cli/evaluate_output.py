"""What ``evaluate`` prints: what is missing on stderr, the figures on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from patchknn.cli import console
from patchknn.cli.evaluate_diagnosis import print_diagnosis
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.intervals import FEW, n_patients
from patchknn.evaluation.sections import Section


def say_what_is_missing(evaluations: Sequence[Evaluation]) -> None:
    """Warnings of what the figures lack, or count as wrong."""
    first = evaluations[0].settings["archive"]
    others = [one for one in evaluations if one.settings["archive"] != first]
    for one in [evaluations[0], *others]:
        archive = "the archive" if one is evaluations[0] else one.settings["archive"]
        for name, count in one.unknown_classes.items():
            console.warn(f"{archive} lacks class {name!r}: its queries ({count}) count as wrong.")
    if evaluations[0].left_out:
        console.warn(f"patches without a label were left out: {evaluations[0].left_out}.")
    settings = evaluations[0].settings
    if settings["unlabelled_rows"] and not settings["labelled_only"]:
        console.warn(
            f"{settings['unlabelled_rows']} of {settings['rows']} archived rows have no label; as "
            "neighbours they count as wrong: --labelled leaves them out."
        )
    for count, methods in _by_count(evaluations, "unread_rows").items():
        console.warn(
            f"{methods} cannot find archived patches whose picture is gone ({count} of "
            f"{settings['rows']}): say --slides DIR where their images lie now."
        )
    for count, methods in _by_count(evaluations, "unread_queries").items():
        console.warn(f"{methods}: queries that cannot be read count as wrong: {count}.")


def _by_count(evaluations: Sequence[Evaluation], name: str) -> dict[int, str]:
    """The methods that a setting counts something for, by how many."""
    methods: dict[int, list[str]] = {}
    for one in evaluations:
        if count := one.settings.get(name, 0):
            methods.setdefault(count, []).append(one.method)
    return {count: ", ".join(names) for count, names in methods.items()}


def say_how_sure(evaluations: Sequence[Evaluation]) -> None:
    """Of how many patients the intervals are, and where these are too few."""
    outcomes = evaluations[0].outcomes
    count = n_patients(outcomes)
    unknown = int((outcomes.patient < 0).sum())
    if unknown:
        console.warn(
            f"the patient of {unknown} of {len(outcomes)} queries is unknown; each counts as a "
            "patient of its own, and intervals may be too narrow: name patients in a 'patient' "
            "column."
        )
    if count == 1:
        console.warn("all queries are of one patient: there are no intervals over patients.")
    elif count < FEW:
        console.warn(f"intervals over {count} patients are too narrow: {FEW} are few already.")


def write_figures(
    evaluations: Sequence[Evaluation], style: str, sections: Sequence[Section] = ()
) -> None:
    """Print the figures of all methods in a style.

    NDJSON has ``sections`` in the object of the first method, TSV none.
    """
    if style == "ndjson":
        more = {section.key: list(section.rows) for section in sections}
        for number, evaluation in enumerate(evaluations):
            console.write_ndjson(evaluation.as_json() | ({} if number else more))
    elif style == "tsv":
        columns = ["method", *evaluations[0].figures()]
        rows = [{"method": evaluation.method, **evaluation.figures()} for evaluation in evaluations]
        joined = [row | {"classes": " ".join(row["classes"])} for row in rows]
        console.write_rows(joined, columns, style)
    else:
        _print_tables(evaluations)
        for section in sections:
            console.print_table(
                section.columns,
                [
                    [
                        _with_interval(row.get(name), row.get("intervals", {}).get(name))
                        for name in section.columns
                    ]
                    for row in section.rows
                ],
                title=section.title,
            )


def _print_tables(evaluations: Sequence[Evaluation]) -> None:
    methods = [evaluation.method for evaluation in evaluations]
    figures = [evaluation.figures() for evaluation in evaluations]
    settings = evaluations[0].settings
    excluded = settings["exclude_same"]
    own = {"none": "nothing", "self": "the query itself"}.get(
        excluded, f"the query's own {excluded}"
    )
    only = "" if settings["where"] is None else f" Only rows where {settings['where']} answer."
    told = f"{settings['archive']}: {settings['rows']} rows; {own} is left out.{only}"
    console.write_text(f"{told}\n\n")
    console.print_table(
        ["figure", *methods],
        [
            [
                name,
                *(
                    _with_interval(column.get(name), one.intervals.get(name))
                    for column, one in zip(figures, evaluations, strict=True)
                ),
            ]
            for name in figures[0]
            if name not in {"classes"}
        ],
    )
    _print_differences(evaluations)
    # Archives that ask themselves have classes of their own.
    rows = [{row["class"]: row for row in one.class_rows()} for one in evaluations]
    console.print_table(
        ["class", "n", *(f"recall, {method}" for method in methods)],
        [
            [
                name,
                rows[0].get(name, {}).get("n", 0),
                *(row.get(name, {}).get("recall") for row in rows),
            ]
            for name in sorted(set().union(*rows))
        ],
        title="Recall by class",
    )
    histograms = [one.neighbour_histogram() for one in evaluations]
    console.print_table(
        ["true neighbours", *(f"queries, {method}" for method in methods)],
        [[hits, *counts] for hits, counts in enumerate(zip_longest(*histograms))],
        title="Queries by true neighbours",
    )
    columns = ("n", "confidence", "accuracy")
    for evaluation in evaluations:
        console.print_table(
            ["bin", *columns],
            [
                [f"{row['low']:.1f} to {row['high']:.1f}", *(row[name] for name in columns)]
                for row in evaluation.confidence_rows()
                if row["n"]
            ],
            title=f"Accuracy against confidence, {evaluation.method}",
        )
        if "diagnosis" in evaluation.added:
            print_diagnosis(evaluation.added["diagnosis"])


def _with_interval(value: Any, interval: Sequence[float] | None) -> Any:
    return value if interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _print_differences(evaluations: Sequence[Evaluation]) -> None:
    rows: list[list[Any]] = []
    for one in evaluations:
        if one.paired is None:
            continue
        figures = {"accuracy": one.paired.accuracy, "precision_at_k": one.paired.precision_at_k}
        for name, entry in figures.items():
            difference = _with_interval(entry.difference, entry.interval)
            rows.append([one.method, name, difference, entry.p, one.paired.patients, one.paired.n])
    if rows:
        console.print_table(
            ["method", "figure", "difference", "p", "patients", "queries"],
            rows,
            title=f"Against {evaluations[0].method}, by patient",
        )
