"""``patchknn evaluate``: how often an archive is right, and what its confidence is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from patchknn.cli import options


def evaluate(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The archive to ask.")],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA…",
            help="Labelled image folders, manifests or tile sets; none: the archive's own rows.",
        ),
    ] = None,
    *,
    split: options.Split = None,
    k: Annotated[int, typer.Option("--k", help="Neighbours that vote.")] = 10,
    radius: options.Radius = 1,
    max_radius: options.MaxRadius = None,
    exclude_same: Annotated[
        Literal["none", "self", "slide", "patient"],
        typer.Option(
            "--exclude-same", help="Leave out rows of the query's own patient, slide, ..."
        ),
    ] = "patient",
    labelled: options.LabelledRows = False,
    where: options.Where = None,
    max_per: options.MaxPer = None,
    coarse: options.Coarse = "hamming",
    candidates: options.Candidates = 100,
    baseline: Annotated[
        Literal["mean-colour"] | None,
        typer.Option("--baseline", help="Also the nearest neighbours by mean colour alone."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="patchknn|l2|annoy",
            help="Also a search with this first stage; repeatable.",
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", metavar="ARCHIVE", help="Also this archive, by its encoder; repeatable."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="k|radius|bits=N,N,…",
            help="Figures for each of these values; bits: the first of the codes; repeatable.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="FIELD",
            help="Figures by a column of DATA, a field of records, slide or patient; repeatable.",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option("--answers", metavar="FILE", help="Write every answer there, as NDJSON."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="DIR", help="Write a CSV behind every table and figure."),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option("--bootstrap", min=0, help="Draws of patients for the intervals; 0: none."),
    ] = 1000,
    seed: options.Seed = 0,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    slides: options.SlidesFolder = None,
    at: options.At = None,
    encoder: options.EncoderElsewhere = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    dask: options.Dask = None,
    format: options.Format = None,
) -> int:
    """Put labelled patches to an archive: accuracy, retrieval, balls, confidence.

    Without DATA the archive's labelled rows ask, one by one. A query's own patient does not answer
    unless --exclude-same says otherwise; missing neighbours and classes that the archive lacks
    count as wrong. NDJSON has one object per method. Inputs that cannot be read are reported and
    the rest is done (exit 3).
    """
    from patchknn.cli.evaluate_run import Embedding, Wanted, run_evaluate
    from patchknn.search.settings import SearchSettings

    settings = SearchSettings(
        k=k,
        radius=radius,
        max_radius=max_radius,
        exclude_same=exclude_same,
        labelled_only=labelled,
        max_per=max_per,
        coarse=coarse,
        candidates=candidates,
        where=where,
    )
    embedding = Embedding(
        encoder=encoder,
        device=device,
        batch_size=batch_size,
        workers=workers or 0,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
    )
    wanted = Wanted(
        format=format,
        split=split,
        slides=slides,
        at=at,
        dask=dask,
        baseline=baseline,
        bootstrap=bootstrap,
        seed=seed,
        methods=method or (),
        compare=compare or (),
        sweeps=sweep or (),
        by=by or (),
        answers=answers,
        csv=csv,
    )
    return run_evaluate(archive, data or [], settings, embedding, wanted)
