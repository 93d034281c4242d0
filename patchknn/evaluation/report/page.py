"""Writes the report: one page that needs nothing beside it, and the figures as files."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

from patchknn.errors import ConflictError, UsageError
from patchknn.evaluation.report.drawing import write_drawing
from patchknn.evaluation.report.parts import SHADES, Cell, ReportData
from patchknn.evaluation.report.words import shown, word
from patchknn.files import errors_named, write_bytes

PAGE, FIGURES = "index.html", "figures"
_TEMPLATES = Path(__file__).with_name("templates")
_NUMBER = re.compile(r"[-+−]?[\d.]+(e[-+]\d+)?( %)?( to [-+−]?[\d.]+( %)?)?|–")
_MARKER = 'name="generator" content="patchknn'


def check_report_folder(folder: Path) -> None:
    """Raise what ``write_report`` would, before hours are spent on what it cannot write.

    UsageError where ``folder`` cannot be one, ConflictError where its page is someone else's.
    """
    if not folder.parent.is_dir():
        message = f"--report {folder}: there is no folder {folder.parent}; make it first."
        raise UsageError(message)
    if folder.exists() and not folder.is_dir():
        message = f"--report {folder} is a file: name a folder."
        raise UsageError(message)
    page = folder / PAGE
    if page.exists():
        with errors_named(page), page.open("rb") as file:
            beginning = file.read(2048).decode(errors="replace")
        if _MARKER not in beginning:
            message = f"{page} was not written by patchknn: name another folder for --report."
            raise ConflictError(message)


def write_report(folder: Path, report: ReportData) -> Path:
    """Write ``folder/index.html``, and ``folder/figures`` as SVG, PDF and CSV; the page's path.

    The page holds all that it shows, asks no network for anything and lets no script run but its
    own. It appears whole or not at all; one of an earlier report is replaced. Raises as
    ``check_report_folder``.
    """
    check_report_folder(folder)
    folder.mkdir(exist_ok=True)
    drawings = [section.figure for section in report.sections if section.figure is not None]
    if drawings:
        (folder / FIGURES).mkdir(exist_ok=True)
    pictures = {drawing.name: write_drawing(drawing, folder / FIGURES) for drawing in drawings}
    page = folder / PAGE
    write_bytes(page, _rendered(report, pictures).encode())
    return page


def _rendered(report: ReportData, drawings: dict[str, str]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from patchknn import __version__

    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    sheet = "" if report.gallery is None else "".join(report.gallery.sheet.css())
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters["cell"] = _cell
    environment.filters["anchor"] = lambda title: re.sub(r"\W+", "-", title.lower()).strip("-")
    return environment.get_template("page.html.j2").render(
        report=report,
        drawings=drawings,
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        sheet=Markup(sheet),
        hashes={
            "style": " ".join(map(_source, filter(None, (style, sheet)))),
            "script": _source(script),
        },
    )


def _visible(value: Any) -> Any:
    """What stands in the page for any value; only what is no markup yet is text of others."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return shown(value)
    return value


def _cell(value: Any) -> dict[str, Any]:
    cell = value if isinstance(value, Cell) else Cell(value)
    text = cell.text
    is_number = isinstance(text, int | float) and not isinstance(text, bool)
    return {
        "text": word(text),
        "hint": cell.hint,
        "shade": max(0, min(cell.shade, SHADES)),
        "strong": cell.strong,
        "number": is_number or bool(_NUMBER.fullmatch(str(text))),
    }


def _source(text: str) -> str:
    """The hash by which a Content-Security-Policy admits exactly this text."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
