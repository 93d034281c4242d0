"""Sections of the page for what is looked for beside the figures: sweeps, fields, a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patchknn.evaluation import sections
from patchknn.evaluation.report.parts import Cell, Drawing, Section, Table
from patchknn.evaluation.report.words import NOTHING, number, word

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table_section(given: sections.Section) -> Section:
    """A table of ``evaluate`` as a part of the page, intervals below their figures."""
    rows = tuple(tuple(_cell(row, name) for name in given.columns) for row in given.rows)
    columns = tuple(name.replace("_", " ") for name in given.columns)
    return Section(given.title, table=Table(columns, rows))


def map_section(figure: Figure, colour: str) -> Section:
    """The t-SNE map of an archive, as it was drawn."""
    text = (
        f"Archived patches, drawn so that those with similar features lie near each other; their "
        f"colour is their {colour}. Only what lies close together means something: how far groups "
        "are apart, and how large they are, does not."
    )
    return Section("Map of the archive", figure=Drawing("map", figure, text))


def _cell(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None:
        return NOTHING
    if not isinstance(value, float):
        return word(value)
    ends: Sequence[float] = row.get("intervals", {}).get(name, ())
    return Cell(number(value), " to ".join(map(number, ends)))
