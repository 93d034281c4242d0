"""``patchknn jobs``: how far the processes are that share a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchknn.cli import console, options

if TYPE_CHECKING:
    from patchknn.jobs.status import RunStatus, UnitStatus

app = typer.Typer(no_args_is_help=True)

_STATUSES = ("done", "running", "failed", "pending")
_COLUMNS = ("unit", "status", "host", "pid", "task", "count", "seconds", "attempts", "error")
_SHOWN = 20


@app.callback()
def jobs() -> None:
    """How far the processes are that share a run, on this machine and others."""


@app.command()
def status(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The output of 'tile' (TILES), 'embed' (ARCHIVE) or 'slide compress' (GRIDS).",
        ),
    ],
    format: options.Format = None,
) -> int:
    """Print how many units are done, running, failed and pending, and which failed, and why.

    A unit is a slide, or a block of images; one that is embedded runs until it is published. The
    figures are of the run that was started last, by all its processes; TSV has a line for every
    unit. Exits with 3 where any has failed: the same command with --only-failed tries those again.
    """
    from patchknn.jobs.claims import CLAIMS
    from patchknn.jobs.records import RECORDS
    from patchknn.jobs.status import run_status

    found = run_status(run / RECORDS, run / CLAIMS)
    style = console.output_format(format)
    if style == "tsv":
        console.write_rows(map(vars, found.units), _COLUMNS, style)
    elif style == "ndjson":
        console.write_ndjson(_as_json(run, found))
    else:
        _print_tables(run, found)
    return 3 if found.of("failed") else 0


def _as_json(run: Path, found: RunStatus) -> dict[str, Any]:
    return {
        "run": str(run),
        "units": len(found.units),
        **{name: len(found.of(name)) for name in _STATUSES},
        "listed": found.listed,
        "failed_units": [_of_unit(unit) for unit in found.of("failed")],
        "running_units": [_of_unit(unit) for unit in found.of("running")],
    }


def _of_unit(unit: UnitStatus) -> dict[str, Any]:
    known = {name: getattr(unit, name) for name in _COLUMNS if name != "status"}
    return {name: value for name, value in known.items() if value is not None}


def _print_tables(run: Path, found: RunStatus) -> None:
    counts = [len(found.of(name)) for name in _STATUSES]
    more = "" if found.listed else " so far"
    console.print_table([f"units{more}", *_STATUSES], [[len(found.units), *counts]], title=str(run))
    _print_units("Running", found.of("running"), ("unit", "host", "pid", "task"))
    _print_units("Failed", found.of("failed"), ("unit", "attempts", "host", "task", "error"))


def _print_units(title: str, units: Sequence[UnitStatus], columns: Sequence[str]) -> None:
    if not units:
        return
    rows = [[getattr(unit, name) for name in columns] for unit in units[:_SHOWN]]
    left = len(units) - _SHOWN
    console.print_table(
        columns, rows, title=title + (f" ({left} more: --format tsv)" if left > 0 else "")
    )
