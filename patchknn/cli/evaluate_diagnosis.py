"""What ``evaluate`` looks for beside its figures: suspected labels, the state of the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.errors import UsageError
from patchknn.evaluation.evaluation import Evaluation
from patchknn.files import check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from patchknn.evaluation.queries import LabelledSet
    from patchknn.evaluation.report.parts import Section


_MANY_SUSPECTS = 0.15


class MapWanted(NamedTuple):
    """A map of ``rows`` rows in a file, coloured by something, and maybe its points as CSV."""

    path: Path
    rows: int = 5000
    colour: str = "label"
    points: Path | None = None
    seed: int = 0


class Diagnosis(NamedTuple):
    """What is to be looked for, and where it goes."""

    suspects: Path | None = None
    diagnose: bool = False
    map: MapWanted | None = None

    def check(self, snapshot: Snapshot, *, own_rows: bool) -> None:
        """Raise UsageError for what could not be made, before hours are spent on it.

        ``own_rows``: it is the archive's rows that ask.
        """
        if self.suspects is not None:
            from patchknn.evaluation.diagnosis.worklist import WORKLIST_SUFFIXES

            check_output(self.suspects, "--suspects", WORKLIST_SUFFIXES)
        if self.map is not None:
            _check_map(snapshot, self.map, own_rows=own_rows)

    def make(
        self, snapshot: Snapshot, asked: LabelledSet | None, judged: Evaluation
    ) -> list[Section]:
        """Look, once the queries are answered; ``asked`` None: the archive's own rows asked.

        What ``diagnose`` finds is added to the figures of the first method, as ``diagnosis``.
        Returns what a report shows of it.
        """
        if self.diagnose:
            judged.added["diagnosis"] = _diagnosed(snapshot, judged)
        if self.suspects is not None:
            _write_suspects(self.suspects, snapshot, asked, judged)
        if self.map is not None:
            from patchknn.evaluation.report.added import map_section

            return [map_section(_draw_map(self.map, snapshot, judged), self.map.colour)]
        return []


def map_wanted(
    path: Path | None, rows: int, colour: str, points: Path | None, seed: int
) -> MapWanted | None:
    """What the options say of a map; UsageError where they say it of none."""
    if path is None:
        if points is not None:
            message = "--map-points needs --map."
            raise UsageError(message)
        return None
    return MapWanted(path, rows, colour, points, seed)


def _check_map(snapshot: Snapshot, wanted: MapWanted, *, own_rows: bool) -> None:
    from patchknn.evaluation.diagnosis.map_colours import check_colour
    from patchknn.evaluation.diagnosis.map_figure import MAP_SUFFIXES

    check_output(wanted.path, "--map", MAP_SUFFIXES)
    if wanted.points is not None:
        check_output(wanted.points, "--map-points", [".csv"])
    check_colour(snapshot, wanted.colour, own_rows=own_rows)


def _draw_map(wanted: MapWanted, snapshot: Snapshot, judged: Evaluation) -> Figure:
    from patchknn.evaluation.diagnosis.map_colours import colour_values
    from patchknn.evaluation.diagnosis.map_figure import map_figure, write_map
    from patchknn.evaluation.diagnosis.maps import map_rows, write_points

    drawn = map_rows(snapshot, wanted.rows, wanted.seed)
    values = colour_values(snapshot, drawn.rows, wanted.colour, judged.outcomes)
    figure = map_figure(drawn, wanted.colour, values, snapshot.classes)
    write_map(wanted.path, figure)
    if wanted.points is not None:
        write_points(wanted.points, drawn, wanted.colour, values)
    console.message(f"{wanted.path} is drawn: {len(drawn.rows)} rows, by {wanted.colour}.")
    return figure


def _diagnosed(snapshot: Snapshot, judged: Evaluation) -> dict[str, Any]:
    from patchknn.evaluation.diagnosis.bits import diagnose_codes
    from patchknn.evaluation.diagnosis.hubness import hubness_as_dict

    labelled = bool(judged.settings["labelled_only"])
    widest = int(judged.settings["max_radius"])
    return {
        **diagnose_codes(snapshot, widest),
        "hubness": hubness_as_dict(snapshot, judged.outcomes, labelled_only=labelled),
    }


def print_diagnosis(diagnosis: Mapping[str, Any]) -> None:
    """What ``diagnose`` found, as tables for people."""
    from patchknn.evaluation.diagnosis.bits import table_rows

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
    from patchknn.evaluation.diagnosis.worklist import write_worklist

    patches = None if asked is None else {patch.id: patch for patch in asked.patches}
    written = write_worklist(path, snapshot, judged.outcomes, patches)
    console.message(
        f"{path}: {written.suspects} labels are suspected; of {written.pairs} more the nearest "
        "neighbour has another label."
    )
    share = written.suspects / len(judged.outcomes)
    if share > _MANY_SUSPECTS:
        console.warn(
            f"{share:.0%} of the labels are suspected: rather the neighbours are wrong than so "
            "many labels; look at each before you relabel, or train an encoder first."
        )
