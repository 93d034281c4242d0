"""What a report is made of: facts, sections with tables and drawings, and a gallery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from patchknn.evaluation.report.gallery import Gallery

SHADES = 10


class Cell(NamedTuple):
    """A cell of a table that is more than its text.

    ``hint`` stands below it in small letters; ``shade`` is 0 (none) to ``SHADES`` (darkest).
    """

    text: Any
    hint: str = ""
    shade: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of plain values or Cells under ``columns``; the first cell of a row names it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A matplotlib figure; ``name`` is that of its files, ``text`` says what is to be seen in it.

    ``table`` are the numbers behind it, written beside it as CSV.
    """

    name: str
    figure: Figure
    text: str
    table: Table | None = None


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page: a title, a paragraph for who reads it first, a table, a drawing."""

    title: str
    text: str = ""
    table: Table | None = None
    figure: Drawing | None = None


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything on the page, in its order.

    ``facts`` say what was asked, as pairs of a name and a value; ``notes`` what the figures lack.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    gallery: Gallery | None = None
