"""``patchknn simulate``: made-up data on which everything else can be tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from patchknn.cli import console, options

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

_COLUMNS = ("slide", "patient", "annotations", "width", "height", "mpp", "levels", "regions")


@app.callback()
def _group() -> None:
    """Make synthetic data on which everything else can be tried."""


@app.command("slides")
def slides(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for slides and their list.")],
    *,
    slides: Annotated[int, typer.Option("--slides", min=1, help="Number of slides.")] = 12,
    patients: Annotated[
        int, typer.Option("--patients", min=1, help="Patients, each with a staining of its own.")
    ] = 6,
    size_px: Annotated[
        int, typer.Option("--size-px", metavar="PX", help="Level-0 width and height.")
    ] = 2048,
    mpp: Annotated[
        float, typer.Option("--mpp", min=0.1, max=2.0, help="µm per pixel at level 0.")
    ] = 0.5,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder with files.")] = False,
    format: options.Format = None,
) -> int:
    """Draw H&E-like slides of nine tissues, with annotations and a slide list.

    Writes pyramidal TIFFs (mpp in the resolution tags), a QuPath GeoJSON beside each, and
    slides.csv (path, patient, annotations), which 'patchknn tile' takes. The tissues ADI BACK
    DEB LYM MUC MUS NORM STR TUM differ by structure; every patient is stained differently. The
    same --seed gives the same pixels.
    """
    from patchknn.jobs.cpus import available_cpus
    from patchknn.simulate.slides import LIST_NAME, SlideSettings, simulate_slides

    settings = SlideSettings(slides, patients, size_px, mpp, seed)
    threads = available_cpus() if workers is None else workers
    written = simulate_slides(out, settings, workers=threads, replace=force)
    style = console.output_format(format)

    def rows() -> Iterator[dict[str, Any]]:
        for slide in console.progress(written, total=settings.slides, label="slides"):
            regions: Any = slide.regions
            if style != "ndjson":
                regions = " ".join(f"{label}:{count}" for label, count in regions.items())
            yield {
                "slide": str(slide.path),
                "patient": slide.patient,
                "annotations": str(slide.annotations),
                "width": size_px,
                "height": size_px,
                "mpp": mpp,
                "levels": slide.levels,
                "regions": regions,
            }

    console.write_rows(rows(), _COLUMNS, style)
    console.message(f"simulate: {settings.slides} done; their list is {out / LIST_NAME}.")
    return 0
