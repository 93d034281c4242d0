"""``patchknn simulate``: made-up data on which everything else can be tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from patchknn.cli import console, options
from patchknn.errors import UsageError

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

_COLUMNS = ("slide", "patient", "annotations", "width", "height", "mpp", "levels", "regions")
_NEEDLE_COLUMNS = ("split", "images", "needle", "clutter", "ratio", "needle_px", "objects")


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


@app.command("needles")
def needles(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for images and manifest.")],
    *,
    kind: Annotated[
        Literal["digits", "tissue"],
        typer.Option("--kind", help="A digit among digits, or clustered lymphocytes in stroma."),
    ] = "digits",
    ratio: Annotated[
        str,
        typer.Option("--ratio", metavar="SHARE", help="Needle's box to image by area: 1% or 0.01."),
    ] = "1%",
    images: Annotated[
        int, typer.Option("--images", min=2, help="Number of images, half with a needle.")
    ] = 1000,
    size: Annotated[
        int, typer.Option("--size", metavar="PX", help="Width and height of an image.")
    ] = 512,
    needle: Annotated[
        int, typer.Option("--needle", min=0, max=9, help="Of digits: which one is the needle.")
    ] = 3,
    clutter: Annotated[
        float | None,
        typer.Option(
            "--clutter", min=0, max=1, help="Share of places with an object [0.5, of tissue 0.15]."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", metavar="T/V[/T]", help="Shares of train, val and test.")
    ] = "70/15/15",
    patients: Annotated[
        int, typer.Option("--patients", min=1, help="Of tissue: each stained in its own way.")
    ] = 12,
    mpp: Annotated[
        float, typer.Option("--mpp", min=0.1, max=2.0, help="Of tissue: µm per pixel.")
    ] = 0.5,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Draw images that hold one small object among clutter, or clutter alone.

    Half of them hold the needle, labelled 'needle'; the others, 'clutter', have as many objects
    without it. Writes PNGs and manifest.csv (path, label, split, where the needle is), which
    'patchknn train' takes. The same --seed gives the same pixels; the same line again goes on
    where it stopped.
    """
    from collections import Counter

    from patchknn.datasets.splits import parse_fractions
    from patchknn.jobs.cpus import available_cpus
    from patchknn.simulate.needle_folder import MANIFEST_NAME, simulate_needles
    from patchknn.simulate.needle_settings import NeedleSettings
    from patchknn.simulate.needles import objects_of, plan_images

    settings = NeedleSettings(
        kind=kind,
        ratio=_share(ratio),
        images=images,
        size_px=size,
        needle=needle,
        clutter=clutter,
        split=parse_fractions(split),
        patients=patients,
        mpp=mpp,
        seed=seed,
    )
    planned = plan_images(settings)
    if not dry_run:
        threads = available_cpus() if workers is None else workers
        written = simulate_needles(out, settings, workers=threads)
        for _ in console.progress(written, total=images, label="images"):
            pass
    counts = Counter((image.split, image.label) for image in planned)
    rows = [
        {
            "split": name,
            "images": counts[name, "needle"] + counts[name, "clutter"],
            "needle": counts[name, "needle"],
            "clutter": counts[name, "clutter"],
            "ratio": settings.realised_ratio,
            "needle_px": settings.object_px,
            "objects": objects_of(settings),
        }
        for name in dict.fromkeys(image.split for image in planned)
    ]
    console.write_rows(rows, _NEEDLE_COLUMNS, console.output_format(format))
    state = "planned; nothing is written" if dry_run else f"done; listed in {out / MANIFEST_NAME}"
    console.message(f"simulate: {images} {state}.")
    return 0


def _share(text: str) -> float:
    """``1%`` or ``0.01`` → 0.01."""
    try:
        value = float(text.rstrip("% "))
    except ValueError:
        message = f"--ratio {text} is no share of an image: give 1% or 0.01, say."
        raise UsageError(message) from None
    return value / 100 if text.rstrip().endswith("%") else value
