"""``patchknn archive records``: what is known of slides and patients, beside their patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.archive.records_attach import Attachment

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
_COLUMNS = ("table", "key", "field", "type", "rows", "filled", "distinct", "example")


@app.callback()
def _group() -> None:
    """Attach tables of slides or patients, for --where and for query --fields."""


@app.command(short_help="Attach a table of slides or patients.")
def attach(
    archive: archive_options.Archive,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, TSV or Parquet; a row a slide or patient.")
    ],
    key: Annotated[
        Literal["patient", "slide"],
        typer.Option("--key", help="What a row is of, and the column that names it."),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="What the table is called; default: as the file."),
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option("--missing", metavar="TEXT", help="Cells with this are empty; repeatable."),
    ] = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Attach a table; one of the same name is replaced, and the same table is left as it is.

    Columns of numbers, of dates as 2015-01-31, and of true and false become such fields; any
    other is text. 'show' lists them. Rows of slides or patients that the archive lacks are counted
    and kept. Example: patchknn archive records attach ARCHIVE clinical.csv --key patient
    """
    from patchknn.archive.records_attach import attach_records
    from patchknn.cli.archive_runs import ChangingRun

    style = console.output_format(format)
    given = {"file": file, "key": key, "name": name, "missing": missing}
    with ChangingRun(archive, given, dry_run=dry_run) as run:
        done = attach_records(
            *(archive, file, key),
            name=name,
            missing=missing or (),
            run_id=run.id,
            dry_run=dry_run,
        )
        _say_what_is_of_no_use(archive, file, key, done)
        summary = {
            "table": done.name,
            "key": key,
            "rows": done.rows,
            "fields": len(done.fields),
            "not_in_archive": len(done.unknown),
            "replaced": done.replaced,
        }
        run.summarise(summary, done.number, style)
    return 0


@app.command(short_help="Show the fields, their types and values.")
def show(
    archive: archive_options.Archive, at: options.At = None, format: options.Format = None
) -> int:
    """Show for each field its table, its type as SQL calls it, and what values it has.

    Example: patchknn archive records show ARCHIVE
    """
    from patchknn.archive.records import open_records
    from patchknn.archive.snapshot import open_archive

    snapshot = open_archive(archive, at)
    with open_records(archive, snapshot.manifest.records) as records:
        rows = (summary._asdict() for summary in records.summaries())
        console.write_rows(rows, _COLUMNS, console.output_format(format))
    return 0


@app.command(short_help="Take a table off again.")
def detach(
    archive: archive_options.Archive,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The table, as 'show' calls it.")],
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Take a table off; earlier snapshots keep it, and 'rollback' brings it back.

    Example: patchknn archive records detach ARCHIVE clinical.csv
    """
    from patchknn.archive.records_attach import detach_records
    from patchknn.cli.archive_runs import ChangingRun

    style = console.output_format(format)
    with ChangingRun(archive, {"name": name}, dry_run=dry_run) as run:
        number = detach_records(archive, name, run_id=run.id, dry_run=dry_run)
        run.summarise({"table": name}, number, style)
    return 0


def _say_what_is_of_no_use(archive: Path, file: Path, key: str, done: Attachment) -> None:
    if done.unkeyed:
        console.warn(f"{file}: rows without a {key} are left out: {done.unkeyed}.")
    for column in done.left_out:
        console.warn(
            f"{file}: the column {column!r} is left out: the archive's own is meant by it."
        )
    if not done.unknown:
        return
    console.warn(
        f"{file}: {len(done.unknown)} of {done.rows} rows are of a {key} that {archive} lacks, "
        f"such as {done.unknown[0]!r}"
        + (f"; {archive} has {done.known!r}." if done.known is not None else ".")
    )
