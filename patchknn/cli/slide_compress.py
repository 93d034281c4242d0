"""``patchknn slide compress``: slides become grids of vectors, one file each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import console, options
from patchknn.errors import UsageError

if TYPE_CHECKING:
    from patchknn.bundle import Bundle
    from patchknn.indexing.remote import RemoteEncoder
    from patchknn.jobs.engines import Engine
    from patchknn.jobs.units import Outcome
    from patchknn.wholeslide.grids.grid_units import Payload

_COLUMNS = ("name", "status", "patches", "height", "width", "path", "detail")
_SUFFIXES = {"hdf5": ".h5", "zarr": ".zarr"}


def compress(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SLIDES...",
            help="Slides, images, folders, lists (CSV, TSV, Parquet with path[,name,mpp,patient]), "
            "tile sets, or - for paths on stdin.",
        ),
    ],
    *,
    encoder: Annotated[
        Path, typer.Option("--encoder", "-e", metavar="ENCODER", help="What makes the vectors.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="GRIDS", help="Folder of the grids.")
    ],
    format: Annotated[
        Literal["hdf5", "zarr"], typer.Option("--format", help="How grids are stored.")
    ] = "hdf5",
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="PX", min=8, help="Patch size [the encoder's input size]."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option("--stride", min=1, metavar="PX", help="Pixels between patches [--size]."),
    ] = None,
    augment: Annotated[
        Literal["1", "8"],
        typer.Option(
            "--augment",
            help="8: also the vectors of all flips and turns of each patch, for training; eight "
            "times the work and room.",
        ),
    ] = "1",
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", min=0.05, max=20.0, help="Target µm per pixel [the encoder's]."),
    ] = None,
    allow_upsample: options.AllowUpsample = False,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    min_tissue: options.MinTissue = 0.5,
    slides: options.SlidesFolder = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="float32|bfloat16",
            help="Of the encoder [what its bundle says].",
        ),
    ] = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    compile: options.Compile = False,
    retries: options.Retries = 1,
    only_failed: options.OnlyFailed = False,
    dask: options.Dask = None,
    dry_run: options.DryRun = False,
) -> int:
    """Compress slides: the vector of each patch at its place, zeros where there is no tissue.

    Each slide becomes a file with an array (D, height, width), and a mask of the tissue. Slides
    done before with the same settings are skipped. The same command may be started many times at
    once, on any machine: each slide is done by one of them, the largest first; 'patchknn jobs
    status GRIDS' tells how far they are.
    """
    from patchknn.bundle import load_bundle
    from patchknn.cli.unit_runs import UnitsRun
    from patchknn.datasets.listing import choose_mpp
    from patchknn.datasets.tiles import PatchSettings
    from patchknn.indexing.reading import ReadSettings
    from patchknn.indexing.remote import RemoteEncoder
    from patchknn.jobs.engines import InThisProcess
    from patchknn.wholeslide.grids.compress_settings import CompressSettings
    from patchknn.wholeslide.grids.grid_units import make_grid, plan_grid, plan_grids

    arguments = console.arguments(sources)
    if not arguments:
        message = "no slide was named on stdin."
        raise UsageError(message)
    bundle = load_bundle(encoder)
    remote = RemoteEncoder(
        *(bundle.directory.absolute(), bundle.fingerprint, device),
        precision=precision or bundle.description.precision,
        averaged=int(augment),
        compiled=compile,
        apart=True,
    )
    patches = PatchSettings(
        size=size or bundle.description.input_size,
        mpp=choose_mpp(arguments, mpp or bundle.description.mpp),
        labels=False,
        slides_dir=slides,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
        min_tissue=min_tissue,
        stride=stride,
        allow_upsample=allow_upsample,
    )
    readers = _checked_readers(bundle, remote, patches.size, workers, dask, dry_run=dry_run)
    settings = CompressSettings(
        patches,
        ReadSettings(patches.size, patches.mpp, default_mpp, workers=readers, threads=bool(dask)),
        remote,
        bundle.description.feature_dim,
        batch_size,
    )
    units = plan_grids(arguments, output, settings, _SUFFIXES[format])
    by_name = {unit.name: unit.payload for unit in units}
    run = UnitsRun("slide compress", output, "patches", retries, only_failed, dask, dry_run)
    work = plan_grid if dry_run else make_grid
    with console.ProgressBar(None, "compress", "patch") as bar:

        def engine(_: int) -> Engine[Payload]:
            return InThisProcess(work if dry_run else partial(make_grid, advance=bar.advance))

        with run.outcomes(units, work, engine) as outcomes:
            return run.tell(
                outcomes,
                lambda outcome: _row(by_name[outcome.unit], outcome),
                _COLUMNS,
                console.output_format(None),
                f"Grids in {output}",
            )


def _checked_readers(
    bundle: Bundle,
    encoder: RemoteEncoder,
    size: int,
    workers: int | None,
    dask: str | None,
    *,
    dry_run: bool,
) -> int:
    """How many read patches; no slide is begun with an encoder that cannot be used."""
    if dry_run:
        return 0
    from patchknn.encoder.devices import choose_device
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.remote import DEFAULT_READERS
    from patchknn.jobs.cpus import reader_processes

    if dask is not None:  # with workers elsewhere this process only looks whether it is of use
        FeatureExtractor.from_bundle(bundle, choose_device("cpu"), encoder.precision).check_size(
            size
        )
        return workers or DEFAULT_READERS
    _, extractor = encoder.load()
    extractor.check_size(size)
    return reader_processes(workers, extractor.device.type)


def _row(payload: Payload, outcome: Outcome) -> dict[str, Any]:
    from patchknn.datasets.patches import Problem

    height, width = outcome.result or (None, None)
    return {
        "name": payload.name if isinstance(payload, Problem) else payload.entry.name,
        "status": outcome.status,
        "patches": outcome.count,
        "height": height,
        "width": width,
        "path": None if isinstance(payload, Problem) else str(payload.output),
        "detail": outcome.detail or None,
    }
