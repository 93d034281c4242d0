"""``patchknn archive``: what an archive holds, whether it is whole, and how it came to be.

What changes an archive lies in files of its own, ``archive_*.py``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchknn.cli import (
    archive_calibrate,
    archive_export,
    archive_import,
    archive_merge,
    archive_records,
    archive_reencode,
    archive_relabel,
    archive_remove,
    archive_upkeep,
    archive_verify,
    console,
    options,
)
from patchknn.cli.archive_info import show_info
from patchknn.cli.archive_options import Archive, Limit

if TYPE_CHECKING:
    from patchknn.archive.history import HistoryEntry
    from patchknn.archive.snapshot import StoredRow

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

# With these names and in this order `archive list --format tsv` is a manifest that train,
# embed and evaluate read; what follows `patient` is for people and other programs.
_LIST_COLUMNS = ("path", "label", "x", "y", "mpp", "name", "patient", "id", "code")
_LIST_TABLE = ("id", "label", "source", "x", "y", "patient", "code")
_LOG_COLUMNS = (
    "number",
    "time",
    "action",
    "rows",
    "rows_added",
    "sources",
    "sources_added",
    "rows_removed",
    "sources_removed",
    "rows_relabelled",
    "shards",
    "run",
    "command",
)
# What fits a terminal; TSV and NDJSON have it all.
_LOG_TABLE_COLUMNS = ("number", "time", "action", "rows", "change", "command")
_LABEL_COLUMNS = ("time", "id", "old", "new", "rows", "by", "reason", "undone", "run")
_LABEL_TABLE_COLUMNS = _LABEL_COLUMNS[:-1]
_LOG_COMMAND_WIDTH = 72
_INDEXED = ("segments", "rows", "built", "indexed", "added", "removed")


app.command(short_help="Compare every checksum, repair.")(archive_verify.verify)
app.command(short_help="Remove patches, slides or patients.")(archive_remove.remove)
app.command(short_help="Correct labels; the history stays.")(archive_relabel.relabel)
app.add_typer(archive_records.app, name="records", short_help="What is known of its slides.")
app.command(short_help="Take in other archives.")(archive_merge.merge)
app.command("import", short_help="Features made elsewhere.")(archive_import.import_)
app.command(short_help="To Parquet, TRIDENT's HDF5, an archive.")(archive_export.export)
app.command(short_help="The same patches, another encoder.")(archive_reencode.reencode)
app.command(short_help="What its confidence means.")(archive_calibrate.calibrate)
app.command(short_help="Write changes in, join small shards.")(archive_upkeep.compact)
app.command(short_help="Delete what no kept snapshot names.")(archive_upkeep.gc)
app.command(short_help="Go back to an earlier snapshot.")(archive_upkeep.rollback)


@app.callback()
def _group() -> None:
    """Look at an archive and keep it: what it holds, its history, corrections, removals."""


@app.command(short_help="Count what an archive holds.")
def info(archive: Archive, at: options.At = None, format: options.Format = None) -> int:
    """Count rows, sources, patients and classes, and say by which encoder they were made.

    That is what the snapshot's manifest says; whether the shards are whole says 'verify'.
    Example: patchknn archive info ARCHIVE
    """
    return show_info(archive, at, format)


@app.command("list", short_help="List its rows; as TSV a manifest.")
def list_(
    archive: Archive,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Only rows of this class; repeatable.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="NAME", help="Only rows of this source; repeatable."),
    ] = None,
    since: Annotated[
        int | None,
        typer.Option("--since", metavar="N", min=0, help="Only rows that snapshot N lacks."),
    ] = None,
    at: options.At = None,
    limit: Limit = None,
    format: options.Format = None,
) -> int:
    """List the rows: id, label, source, position in level-0 pixels, patient, code in hexadecimal.

    As TSV it is a manifest that train, embed and evaluate read: correct its labels and train
    again. Example: patchknn archive list ARCHIVE --label TUM --format tsv > tumour.tsv
    """
    from patchknn.archive.listing import list_rows
    from patchknn.archive.snapshot import open_archive

    snapshot = open_archive(archive, at)
    before = None if since is None else open_archive(archive, since)
    found = list_rows(snapshot, labels=label or (), sources=source or (), since=before)
    rows = islice(found, limit)
    style = console.output_format(format)
    if style == "tsv":
        console.write_rows(map(_as_manifest_line, rows), _LIST_COLUMNS, style)
    else:
        console.write_rows(map(_as_object, rows), _LIST_TABLE, style)
    return 0


@app.command(short_help="Show its snapshots and their commands.")
def log(
    archive: Archive,
    labels: Annotated[
        bool, typer.Option("--labels", help="Show whose label was changed, by whom and why.")
    ] = False,
    limit: Limit = None,
    format: options.Format = None,
) -> int:
    """Show the snapshots, the newest first: when, what was changed, and by which command.

    Example: patchknn archive log ARCHIVE --limit 10
    """
    from patchknn.archive.history import history, label_history

    style = console.output_format(format)
    if labels:
        events = islice(label_history(archive), limit)
        objects = ({**asdict(event), "run": event.run_id} for event in events)
        told = ({name: entry[name] for name in _LABEL_COLUMNS} for entry in objects)
        shown = _LABEL_TABLE_COLUMNS if style == "table" else _LABEL_COLUMNS
        console.write_rows(told, shown, style)
        return 0
    rows = (
        {
            "number": entry.number,
            "time": entry.time[:16].replace("T", " ") if style == "table" else entry.time,
            "action": entry.action,
            "rows": entry.rows,
            "rows_added": entry.rows_added,
            "sources": entry.sources,
            "sources_added": entry.sources_added,
            "rows_removed": entry.rows_removed,
            "sources_removed": entry.sources_removed,
            "rows_relabelled": entry.rows_relabelled,
            "change": _change(entry),
            "shards": entry.shards,
            "run": entry.run_id,
            "command": _command(entry.argv, _LOG_COMMAND_WIDTH if style == "table" else None),
        }
        for entry in islice(history(archive), limit)
    )
    columns = _LOG_TABLE_COLUMNS if style == "table" else _LOG_COLUMNS
    console.write_rows(({name: row[name] for name in columns} for row in rows), columns, style)
    return 0


@app.command(short_help="Index its rows, so that searches are fast.")
def index(
    archive: Archive,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the whole index anew, in one segment.")
    ] = False,
    format: options.Format = None,
) -> int:
    """Index the rows that have no index yet; embed does so by itself.

    The index is derived from the shards: it may be deleted, and searches answer the same without
    it, only later. Example: patchknn archive index ARCHIVE --rebuild
    """
    from patchknn.archive.index.update import update_index

    started = time.monotonic()
    with console.ProgressBar(None, "index", "row") as bar:
        report = update_index(archive, rebuild=rebuild, progress=bar.advance)
    for problem in report.problems:
        console.warn(problem)
    summary: dict[str, Any] = {"archive": str(archive)}
    summary |= {name: value for name, value in asdict(report).items() if name in _INDEXED}
    summary["seconds"] = round(time.monotonic() - started, 2)
    console.write_rows([summary], list(summary), console.output_format(format))
    return 0


def _change(entry: HistoryEntry) -> str | None:
    counts = (("+", entry.rows_added), ("−", entry.rows_removed), ("~", entry.rows_relabelled))
    return " ".join(f"{sign}{count}" for sign, count in counts if count) or None


def _command(argv: Sequence[str] | None, width: int | None) -> str | None:
    if argv is None:
        return None
    text = shlex.join(argv)
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def _as_object(row: StoredRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "label": row.label,
        "source": row.source,
        "x": row.x,
        "y": row.y,
        "patient": row.patient,
        "code": row.code.hex(),
        "path": row.path,
        "mpp": row.mpp,
    }


def _as_manifest_line(row: StoredRow) -> dict[str, Any]:
    plain = row.x < 0 and row.y < 0
    position = {"x": None, "y": None} if plain else {"x": row.x, "y": row.y}
    return {**_as_object(row), "name": row.source, **position}
