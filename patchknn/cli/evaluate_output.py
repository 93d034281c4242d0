"""What ``evaluate`` prints: what is missing on stderr, the figures on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from patchknn.cli import console
from patchknn.cli.evaluate_diagnosis import print_diagnosis
from patchknn.evaluation.evaluation import Evaluation


def say_what_is_missing(evaluations: Sequence[Evaluation]) -> None:
    """Warnings of what the figures lack, or count as wrong."""
    for name, count in evaluations[0].unknown_classes.items():
        console.warn(f"the archive lacks class {name!r}: its queries ({count}) count as wrong.")
    if evaluations[0].left_out:
        console.warn(f"patches without a label were left out: {evaluations[0].left_out}.")
    settings = evaluations[0].settings
    if settings["unlabelled_rows"] and not settings["labelled_only"]:
        console.warn(
            f"{settings['unlabelled_rows']} of {settings['rows']} archived rows have no label; as "
            "neighbours they count as wrong: --labelled leaves them out."
        )
    for one in evaluations:
        if count := one.settings.get("unread_rows", 0):
            console.warn(
                f"{one.method} cannot find archived patches whose picture is gone ({count} of "
                f"{one.settings['rows']}): say --slides DIR where their images lie now."
            )
        if count := one.settings.get("unread_queries", 0):
            console.warn(f"{one.method}: queries that cannot be read count as wrong: {count}.")


def write_figures(evaluations: Sequence[Evaluation], style: str) -> None:
    """Print the figures of all methods in a style."""
    if style == "ndjson":
        for evaluation in evaluations:
            console.write_ndjson(evaluation.as_json())
    elif style == "tsv":
        columns = ["method", *evaluations[0].figures()]
        rows = [{"method": evaluation.method, **evaluation.figures()} for evaluation in evaluations]
        joined = [row | {"classes": " ".join(row["classes"])} for row in rows]
        console.write_rows(joined, columns, style)
    else:
        _print_tables(evaluations)


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
            [name, *(column[name] for column in figures)]
            for name in figures[0]
            if name not in {"classes"}
        ],
    )
    console.print_table(
        ["class", "n", *(f"recall, {method}" for method in methods)],
        [
            [entries[0]["class"], entries[0]["n"], *(entry["recall"] for entry in entries)]
            for entries in zip(
                *(evaluation.class_rows() for evaluation in evaluations), strict=True
            )
        ],
        title="Recall by class",
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
