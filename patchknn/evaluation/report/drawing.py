"""How figures look, and how they are written: SVG, PDF, CSV, and a data URI for the page."""

from __future__ import annotations

import csv
import re
import warnings
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchknn.evaluation.report.parts import Cell, Drawing, Table
from patchknn.evaluation.report.words import shown, word
from patchknn.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): eight colours that colour-blind readers can tell apart. Yellow is last,
# too light for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
MARKERS = "osD^vP*X"
INK, FAINT = "#1f2328", "#59636e"
_MOST_SVG = 400_000
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called $x$
    "svg.fonttype": "path",
    "svg.hashsalt": "patchknn",  # the same figure is the same file
    "pdf.fonttype": 42,
}


@contextmanager
def report_style() -> Iterator[None]:
    """Figures that are made and saved in here look alike, and name what no font has as a box."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def new_figure(width: float = 5.8, height: float = 3.7) -> tuple[Figure, Axes]:
    """A figure of inches with one pair of axes, that no window knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def colour(number: int) -> str:
    """The colour of the method of this number."""
    return PALETTE[number % len(PALETTE)]


def write_drawing(drawing: Drawing, folder: Path) -> str:
    """Write ``folder/NAME.svg``, ``.pdf`` and ``.csv``; the picture as a data URI for the page."""
    name = file_name(drawing.name)
    with report_style():
        svg = _saved(drawing.figure, "svg")
        write_bytes(folder / f"{name}.svg", svg)
        write_bytes(folder / f"{name}.pdf", _saved(drawing.figure, "pdf"))
        if drawing.table is not None:
            write_bytes(folder / f"{name}.csv", as_csv(drawing.table))
        if len(svg) <= _MOST_SVG:
            return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"
        # A map of many points is smaller as pixels; the file beside the page has its lines.
        return f"data:image/png;base64,{b64encode(_saved(drawing.figure, 'png')).decode()}"


def file_name(name: str) -> str:
    """A name as that of a file on any system."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "figure"


def as_csv(table: Table) -> bytes:
    """A table as CSV in UTF-8; numbers keep all their digits."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([shown(column) for column in table.columns])
    for row in table.rows:
        values = [cell.text if isinstance(cell, Cell) else cell for cell in row]
        writer.writerow([v if isinstance(v, int | float) else _text(v) for v in values])
    return out.getvalue().encode()


def _text(value: object) -> str:
    return "" if value is None else shown(word(value))


def _saved(figure: Figure, style: str) -> bytes:
    out = BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(out, format=style, metadata=dates.get(style), dpi=160)
    return out.getvalue()
