"""``patchknn query``: what do these patches look like, and how sure are we?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from patchknn.cli import options


def query(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The archive to search.")],
    queries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERIES…",
            help="Images, folders, manifests, slides, .npy features; '-' reads paths from stdin. "
            "With --id: more patch ids.",
        ),
    ] = None,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID…", help="Stored patches; '-' reads ids from stdin."),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Neighbours to show and let vote.")] = 10,
    radius: options.Radius = 1,
    max_radius: options.MaxRadius = None,
    exclude_same: Annotated[
        Literal["none", "self", "slide", "patient"],
        typer.Option("--exclude-same", help="Leave out rows of the query's own patch, slide, ..."),
    ] = "self",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="CLASS", help="Only rows of this class; repeatable."),
    ] = None,
    labelled: options.LabelledRows = False,
    where: options.Where = None,
    max_per: options.MaxPer = None,
    coarse: options.Coarse = "hamming",
    candidates: options.Candidates = 100,
    abstain_below: Annotated[
        float | None,
        typer.Option("--abstain-below", metavar="C", help="Mark lower confidence for review."),
    ] = None,
    min_neighbours: Annotated[
        int | None,
        typer.Option("--min-neighbours", help="Mark fewer votes for review; default: half of k."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="PX", help="Patch size; must be the archive's."),
    ] = None,
    image_mpp: options.ImageMpp = None,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    patient: Annotated[
        str | None, typer.Option("--patient", help="The patient that the queries are of.")
    ] = None,
    at: options.At = None,
    encoder: options.EncoderElsewhere = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    dask: options.Dask = None,
    format: options.Format = None,
    fields: options.Fields = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Append NDJSON; a rerun resumes."),
    ] = None,
    montage: Annotated[
        Path | None,
        typer.Option("--montage", metavar="PNG", help="Draw queries and neighbours (20 rows)."),
    ] = None,
    report: options.Report = None,
    report_queries: options.ReportQueries = 200,
    overlay: Annotated[
        Path | None,
        typer.Option("--overlay", metavar="DIR", help="Draw predictions on each slide, as PNG."),
    ] = None,
    geojson: Annotated[
        Path | None,
        typer.Option("--geojson", metavar="DIR", help="Predictions as GeoJSON for QuPath."),
    ] = None,
    slides: options.SlidesFolder = None,
    calibrated: options.Calibrated = False,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", metavar="C", help="As --calibrated, for sets of this promise."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in each answer what its search took.")
    ] = False,
) -> int:
    """Find the nearest archived patches of each query, their votes and a confidence.

    Two stages: the rows within a Hamming radius of the query's code (widened where they are
    fewer than k), ranked by the L2 distance of their features. Stored rows and .npy features
    need no torch. --where and --fields are about records that are attached (see 'patchknn archive
    records attach --help'), as in --where "organ = 'colon' and year >= 2015" --fields organ,year.
    --calibrated says how probable the prediction is to be right, which classes it might be, and
    whether the query is like nothing in the archive (see 'patchknn archive calibrate --help').
    A query that fails is reported and the rest is answered (exit 3; 1 where none is).
    """
    from patchknn.cli.query_asked import ImageSettings
    from patchknn.cli.query_run import run_query
    from patchknn.cli.query_wanted import Wanted, names_in
    from patchknn.search.settings import SearchSettings

    settings = SearchSettings(
        k=k,
        radius=radius,
        max_radius=max_radius,
        exclude_same=exclude_same,
        labels=frozenset(label) if label else None,
        labelled_only=labelled,
        max_per=max_per,
        coarse=coarse,
        candidates=candidates,
        min_neighbours=min_neighbours,
        abstain_below=abstain_below,
        where=where,
    )
    images = ImageSettings(
        encoder=encoder,
        image_mpp=image_mpp,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
        slides_dir=slides,
        patient=patient,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    wanted = Wanted(
        format=format,
        output=output,
        montage=montage,
        slides=slides,
        size=size,
        explain=explain,
        at=at,
        dask=dask,
        fields=names_in(fields),
        calibrated=calibrated or coverage is not None,
        coverage=coverage,
        report=report,
        report_queries=report_queries,
        overlay=overlay,
        geojson=geojson,
    )
    return run_query(archive, queries or [], id or [], settings, images, wanted)
