"""``patchknn archive import``: features made elsewhere become an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.indexing.import_prepare import ImportSettings
    from patchknn.indexing.importing import ImportCounts

_COUNTED = ("rows", "sources", "skipped", "empty", "failed", "unmatched_labels")


def import_(
    archive: archive_options.Archive,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="HDF5 of TRIDENT, CLAM or STAMP, folders of them, .npy (with a table of the same "
            "name, or one given behind it), or - for paths on stdin.",
        ),
    ],
    *,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="TABLE", help="slide,label or name,x,y,label or id,label."
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", min=8, max=1024, help="Of a new archive's codes [48]."),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample", metavar="N", min=2, max=50_000, help="Rows that codes are fitted on."
        ),
    ] = 50_000,
    encoder: Annotated[
        Path | None,
        typer.Option(
            "--encoder", "-e", metavar="ENCODER", help="Its hash map; default: codes are fitted."
        ),
    ] = None,
    feature_dtype: Annotated[
        Literal["float16", "float32"] | None,
        typer.Option("--feature-dtype", help="How features are stored; default: as they are."),
    ] = None,
    patch_px: Annotated[
        int | None,
        typer.Option(
            "--patch-px", "--size", metavar="PX", min=1, help="Patch size [what files say]."
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", min=0.05, max=20.0, help="µm per pixel of patches [what files say]."),
    ] = None,
    slide_mpp: options.SlideMpp = None,
    unit: Annotated[
        Literal["px", "um"] | None,
        typer.Option("--unit", help="Of positions: pixels of level 0 or µm [what files say]."),
    ] = None,
    shard_format: Annotated[
        Literal["zarr", "hdf5"], typer.Option("--shard-format", help="How shards are stored.")
    ] = "zarr",
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Import features of TRIDENT, CLAM, STAMP or .npy files, bit for bit.

    The first import makes the archive, and with it an encoder without a backbone: codes are fitted
    on a sample of the features by ITQ. Later imports use it, and refuse features of another width
    or encoder. What is there with the same content is skipped, and keeps its labels; a file that
    cannot be used is named on stderr and the rest is done (exit 3; 1 where all fail). Example:
    patchknn archive import ARCHIVE features_uni_v1/ --labels slides.csv
    """
    from patchknn.bundle import load_bundle
    from patchknn.indexing.import_fit import Asked
    from patchknn.indexing.import_parts import Reading, paired
    from patchknn.indexing.import_prepare import ImportSettings, prepare_import
    from patchknn.indexing.importing import Importer

    paths: list[str] = []
    for file in files:
        paths += console.stdin_lines() if file == "-" else [file]
    settings = ImportSettings(
        reading=Reading(paired(paths), labels, slide_mpp, unit),
        asked=Asked(feature_dtype, patch_px, mpp, encoder is not None),
        bits=bits,
        sample=sample,
        seed=seed,
        bundle=None if encoder is None else load_bundle(encoder),
        shard_format=shard_format,
    )
    style = console.output_format(format)
    fit = prepare_import(archive, settings, dry_run=dry_run)
    with console.ProgressBar(None, "import", "patch") as bar:
        importer = Importer(
            archive,
            fit,
            settings,
            failed=console.message,
            warned=console.warn,
            done=bar.advance,
        )
        if dry_run:
            counts = importer.run(dry_run=True)
            whole = {"archive": str(archive), "dry_run": True, **_summary(counts)}
            console.write_rows([whole], list(whole), style)
        else:
            _run(archive, importer, settings, seed, style)
    counts = importer.counts
    if counts.scaled and slide_mpp is None:
        console.message(
            f"Positions in µm (sources: {counts.scaled}) are kept as pixels of their patches' "
            "µm/px; with --slide-mpp they would be pixels of level 0."
        )
    if not counts.failed:
        return 0
    return 3 if counts.sources or counts.skipped or counts.empty else 1


def _run(archive: Path, importer: Any, settings: ImportSettings, seed: int, style: str) -> None:
    from patchknn.cli.archive_runs import ChangingRun

    reading, asked = settings.reading, settings.asked
    given = {
        "files": [str(one.path) for one in reading.inputs],
        "labels": reading.labels,
        "sample": settings.sample,
        "seed": seed,
        **asked._asdict(),
    }
    with ChangingRun(archive, given, dry_run=False) as run:
        is_done = False
        try:
            importer.run(run_id=run.id)
            is_done = True
        finally:
            counts = importer.counts
            if is_done or counts.number is not None:
                run.summarise(_summary(counts), counts.number, style)


def _summary(counts: ImportCounts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in _COUNTED}
