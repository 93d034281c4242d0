"""``patchknn tile``: slides become tile sets, one HDF5 file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import console
from patchknn.cli.options import (
    AllowUpsample,
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
    from patchknn.jobs.engines import Engine
    from patchknn.jobs.units import Outcome, Unit
    from patchknn.slides.units import SlideUnit

_COLUMNS = ("name", "status", "tiles", "path", "detail")


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
    allow_upsample: AllowUpsample = False,
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
    from patchknn.cli.unit_runs import UnitsRun
    from patchknn.jobs.cpus import available_cpus
    from patchknn.jobs.engines import local_engine
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
    units.sort(key=lambda unit: -file_size(unit.payload.entry.path))
    work = plan_tiles if dry_run else make_tiles
    run = UnitsRun("tile", output, "tiles", retries, only_failed, dask, dry_run)

    def engine(count: int) -> Engine[SlideUnit]:
        return local_engine(work, min(processes, count))

    with (
        run.outcomes(units, work, engine) as outcomes,
        console.ProgressBar(len(by_name), "tile", "slide") as bar,
    ):
        return run.tell(
            bar.counting(outcomes),
            lambda outcome: _row(by_name[outcome.unit], outcome),
            _COLUMNS,
            console.output_format(format),
            f"Tile sets in {output}",
        )


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


def _row(unit: SlideUnit, outcome: Outcome) -> dict[str, Any]:
    return {
        "name": unit.entry.name,
        "status": outcome.status,
        "tiles": outcome.count,
        "path": str(unit.output),
        "detail": outcome.detail or None,
    }


def _arguments(slides: list[str]) -> list[str]:
    paths = console.arguments(slides)
    if not paths:
        message = "no slide was named on stdin."
        raise UsageError(message)
    return paths
