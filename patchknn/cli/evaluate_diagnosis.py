"""What ``evaluate`` looks for beside its figures: suspected labels, the state of the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    from patchknn.evaluation.queries import LabelledSet


class Diagnosis(NamedTuple):
    """What is to be looked for, and where it goes."""

    suspects: Path | None = None
    diagnose: bool = False

    def check(self) -> None:
        """Raise UsageError for what could not be written, before hours are spent on it."""
        if self.suspects is not None:
            from patchknn.evaluation.worklist import check_worklist_path

            check_worklist_path(self.suspects)

    def make(self, snapshot: Snapshot, asked: LabelledSet | None, judged: Evaluation) -> None:
        """Look, once the queries are answered; ``asked`` None: the archive's own rows asked.

        What ``diagnose`` finds is added to the figures of the first method, as ``diagnosis``.
        """
        if self.diagnose:
            judged.added["diagnosis"] = _diagnosed(snapshot, judged)
        if self.suspects is not None:
            _write_suspects(self.suspects, snapshot, asked, judged)


def _diagnosed(snapshot: Snapshot, judged: Evaluation) -> dict[str, Any]:
    from patchknn.evaluation.bits import diagnose_codes
    from patchknn.evaluation.hubness import hubness_as_dict

    labelled = bool(judged.settings["labelled_only"])
    widest = int(judged.settings["max_radius"])
    return {
        **diagnose_codes(snapshot, widest),
        "hubness": hubness_as_dict(snapshot, judged.outcomes, labelled_only=labelled),
    }


def print_diagnosis(diagnosis: Mapping[str, Any]) -> None:
    """What ``diagnose`` found, as tables for people."""
    from patchknn.evaluation.bits import table_rows

    bits = [*table_rows(diagnosis)]
    console.print_table(["codes", "value"], bits, title="Codes")
    columns = ["radius", "mean", "median", "largest", "empty", "share"]
    balls = [[row[name] for name in columns] for row in diagnosis["balls"]]
    title = "Rows in a ball around a row, by radius in bits"
    console.print_table(columns, balls, title=title)
    columns = ["class", "rows", "codes", "mixed"]
    by_class = [[row[name] for name in columns] for row in diagnosis["codes"]["by_class"]]
    title = "Codes by class; mixed: rows whose code another class has too"
    console.print_table(columns, by_class, title=title)
    found = diagnosis["hubness"]
    told = ("mean_occurrence", "skewness", "antihubs", "hubs", "occurrences_of_hubs")
    rows = [[name, found[name]] for name in (*told, "bad_occurrences")]
    console.print_table(["hubness", "value"], rows, title="How often rows are neighbours")
    columns = ["id", "label", "occurrences", "bad"]
    console.print_table(columns, [[row[name] for name in columns] for row in found["top"]])


def _write_suspects(
    path: Path, snapshot: Snapshot, asked: LabelledSet | None, judged: Evaluation
) -> None:
    from patchknn.evaluation.worklist import write_worklist

    patches = None if asked is None else {patch.id: patch for patch in asked.patches}
    written = write_worklist(path, snapshot, judged.outcomes, patches)
    console.message(
        f"{path}: {written.suspects} labels are suspected; of {written.pairs} more the nearest "
        "neighbour has another label."
    )
