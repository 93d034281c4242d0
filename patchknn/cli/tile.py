"""``patchknn tile``: slides become tile sets, one HDF5 file each."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import console
from patchknn.cli.options import (
    Dask,
    DefaultMpp,
    DryRun,
    Format,
    OnlyFailed,
    Retries,
    Size,
    SlideMpp,
    Workers,
)
from patchknn.errors import UsageError

if TYPE_CHECKING:
    from patchknn.jobs.units import Outcome, Unit
    from patchknn.slides.units import SlideUnit

_COLUMNS = ("name", "status", "tiles", "path", "detail")
_TABLE = ("name", "status", "tiles", "detail")
_COUNTED = ("done", "planned", "skipped", "empty", "failed")


def tile(
    slides: Annotated[
        list[str],
        typer.Argument(
            metavar="SLIDES...",
            help="Slides, images, folders, lists (CSV, TSV, Parquet with path[,name,mpp,patient,"
            "label,annotations]), or - for paths on stdin.",
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TILES", help="Folder of the tile sets.")
    ],
    size: Size = 224,
    stride: Annotated[
        int | None,
        typer.Option("--stride", min=1, metavar="PX", help="Pixels between tiles [--size]."),
    ] = None,
    mpp: Annotated[
        float, typer.Option("--mpp", min=0.05, max=20.0, help="Target µm per pixel, met exactly.")
    ] = 0.5,
    allow_upsample: Annotated[
        bool, typer.Option("--allow-upsample", help="Let the target be finer than the slide.")
    ] = False,
    slide_mpp: SlideMpp = None,
    default_mpp: DefaultMpp = None,
    min_tissue: Annotated[
        float,
        typer.Option("--min-tissue", min=0, max=1, help="Share of tissue; 0 keeps every tile."),
    ] = 0.5,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            metavar="DIR|FILE",
            help="QuPath GeoJSON or ASAP XML, in a folder found by the slide's name.",
        ),
    ] = None,
    min_cover: Annotated[
        float,
        typer.Option("--min-cover", min=0, max=1, help="Share a class must cover to be a label."),
    ] = 0.75,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Only tiles that have a label.")
    ] = False,
    images: Annotated[
        Literal["none", "png", "jpeg"],
        typer.Option("--images", help="Also write tiles to NAME/LABEL/X_Y."),
    ] = "none",
    workers: Workers = None,
    retries: Retries = 1,
    only_failed: OnlyFailed = False,
    dask: Dask = None,
    dry_run: DryRun = False,
    format: Format = None,
) -> int:
    """Cut slides into tiles that hold tissue, labelled by annotations where there are any.

    Slides done before with the same settings are skipped. The same command may be started many
    times at once, on any machine: each slide is done by one of them, the largest first; 'patchknn
    jobs status TILES' tells how far they are.
    """
    from patchknn.jobs.claims import CLAIMS
    from patchknn.jobs.cpus import available_cpus
    from patchknn.jobs.engines import local_engine
    from patchknn.jobs.ledger import Ledger
    from patchknn.jobs.records import RECORDS
    from patchknn.jobs.run import run_units
    from patchknn.jobs.units import Unit
    from patchknn.slides.listing import list_slides
    from patchknn.slides.pixels import file_size
    from patchknn.slides.tiling import TilingSettings
    from patchknn.slides.units import plan_units

    settings = TilingSettings(size, stride, mpp, min_tissue, min_cover, allow_upsample, labelled)
    entries = list_slides(_arguments(slides), exclude=output)
    if annotations is not None and annotations.is_file() and len(entries) > 1:
        message = f"--annotations {annotations} is one file for {len(entries)} slides; give a DIR."
        raise UsageError(message)
    processes = available_cpus() if workers is None else workers
    plan = plan_units(
        entries,
        output,
        settings,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
        annotations=annotations,
        images=None if images == "none" else images,
        workers=processes,
    )
    # A slide that clashes shares its file with another, so it needs a name of its own.
    units = [Unit(u.entry.name if u.clash is None else str(u.entry.path), u) for u in plan]
    by_name = {unit.name: unit.payload for unit in units}
    if output.exists() and not output.is_dir():
        message = f"{output} is a file, not a folder; choose another -o."
        raise UsageError(message)
    stack = ExitStack()
    ledger = None
    if not dry_run:
        output.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(
            *(output / CLAIMS, output / RECORDS, "tile"), retries=retries, only_failed=only_failed
        )
        stack.enter_context(ledger)
    with stack:
        if ledger is not None:
            ledger.plan([unit.name for unit in units])
            if only_failed:
                failed = ledger.failed_before()
                units = [unit for unit in units if unit.name in failed]
        units.sort(key=lambda unit: -file_size(unit.payload.entry.path))
        work = plan_tiles if dry_run else make_tiles
        if dask is None:
            engine = local_engine(work, min(processes, len(units)))
        else:
            from patchknn.jobs.connecting import connected

            engine = stack.enter_context(connected(dask, console.warn)).engine(work)
        outcomes = run_units(units, engine, ledger)
        return _told(outcomes, by_name, output, console.output_format(format), dry_run=dry_run)


def _told(
    outcomes: Generator[Outcome, None, None],
    by_name: Mapping[str, SlideUnit],
    output: Path,
    style: str,
    *,
    dry_run: bool,
) -> int:
    """Print what becomes of the slides as it comes; the exit code."""
    counts = dict.fromkeys(_COUNTED, 0)

    def rows() -> Any:
        with console.ProgressBar(len(by_name), "tile", "slide") as bar:
            for outcome in outcomes:
                bar.advance()
                yield _row(by_name[outcome.unit], outcome, counts)

    columns = _TABLE if style == "table" else _COLUMNS
    with closing(outcomes):  # a signal ends the workers at once, not when Python tidies up
        console.write_rows(rows(), columns, style, title=f"Tile sets in {output}")
    console.message(_summary(counts, dry_run=dry_run))
    if counts["failed"]:
        return 1 if counts["failed"] == sum(counts.values()) else 3
    return 0


def make_tiles(unit: Unit[SlideUnit]) -> Outcome:
    """Make one tile set, as a unit of work."""
    return _work(unit, dry_run=False)


def plan_tiles(unit: Unit[SlideUnit]) -> Outcome:
    """Say what would become of one slide."""
    return _work(unit, dry_run=True)


def _work(unit: Unit[SlideUnit], *, dry_run: bool) -> Outcome:
    from patchknn.jobs.units import Outcome
    from patchknn.slides.units import tile_unit

    result = tile_unit(unit.payload, dry_run=dry_run)
    return Outcome(unit.name, result.status, result.detail, result.tiles)


def _row(unit: SlideUnit, outcome: Outcome, counts: dict[str, int]) -> dict[str, Any]:
    counts[outcome.status] += 1
    row: dict[str, Any] = {
        "name": unit.entry.name,
        "status": outcome.status,
        "tiles": outcome.count,
        "path": None if outcome.status == "failed" else str(unit.output),
        "detail": outcome.detail or None,
    }
    if outcome.status == "failed":
        console.fail(outcome.detail)
        row["error"] = outcome.detail
    elif outcome.detail and outcome.count != 0:
        console.message(f"{unit.entry.name}: {outcome.detail}")
    tiles = f", {outcome.count} tiles" if outcome.count else ""
    console.log(f"{unit.entry.name}: {outcome.status}{tiles}.")
    return row


def _summary(counts: dict[str, int], *, dry_run: bool) -> str:
    order = ("planned", "skipped", "failed") if dry_run else ("done", "skipped", "empty", "failed")
    text = ", ".join(f"{counts[status]} {status}" for status in order)
    return f"tile: {text}."


def _arguments(slides: list[str]) -> list[str]:
    paths: list[str] = []
    for argument in slides:
        paths += console.stdin_lines() if argument == "-" else [argument]
    if not paths:
        message = "no slide was named on stdin."
        raise UsageError(message)
    return paths
