"""``patchknn evaluate``: how often an archive is right, and what its confidence is worth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from patchknn.cli import options


class BaselineName(StrEnum):
    """What ``--baseline`` takes."""

    MEAN_COLOUR = "mean-colour"
    COLOUR_HISTOGRAM = "colour-histogram"
    FROZEN = "frozen"
    ALL = "all"
    NONE = "none"


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
        list[BaselineName] | None,
        typer.Option(
            "--baseline",
            help="Also neighbours by what any picture shows; tables and reports have all.",
        ),
    ] = None,
    frozen_weights: Annotated[
        Path | None,
        typer.Option(
            "--frozen-weights", metavar="FILE", help="Of 'frozen'; default: timm's pretrained."
        ),
    ] = None,
    frozen_backbone: Annotated[
        str | None,
        typer.Option(
            "--frozen-backbone", metavar="NAME", help="Of 'frozen'; default: the encoder's own."
        ),
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
    fields: options.Fields = None,
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
    report: options.Report = None,
    report_queries: options.ReportQueries = 200,
    calibrated: options.Calibrated = False,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    slides: options.SlidesFolder = None,
    at: options.At = None,
    encoder: options.EncoderElsewhere = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    dask: options.Dask = None,
    suspects: Annotated[
        Path | None,
        typer.Option("--suspects", metavar="FILE.tsv", help="Write labels that seem wrong."),
    ] = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Also look at bits, balls, collisions and hubs.")
    ] = False,
    map: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="Draw a t-SNE map of rows: .png, .svg, .pdf."),
    ] = None,
    map_rows: Annotated[
        int, typer.Option("--map-rows", min=5, help="Rows on the map, evenly by class.")
    ] = 5000,
    map_points: Annotated[
        Path | None,
        typer.Option("--map-points", metavar="FILE.csv", help="Also the map's points as a table."),
    ] = None,
    colour: Annotated[
        str,
        typer.Option(
            "--colour", metavar="FIELD", help="label, right, prediction, patient, slide, a field."
        ),
    ] = "label",
    format: options.Format = None,
) -> int:
    """Put labelled patches to an archive: accuracy, retrieval, balls, confidence.

    Without DATA the archive's labelled rows ask, one by one. A query's own patient does not answer
    unless --exclude-same says otherwise; missing neighbours and classes that the archive lacks
    count as wrong. NDJSON has one object per method. Baselines are judged by the same k, filters
    and vote: mean-colour, colour-histogram, and frozen, an ImageNet backbone without training; a
    table has those by colour unless there are more than 10000 pictures to read. Inputs that cannot
    be read are reported and the rest is done (exit 3). --suspects FILE is a table that 'archive
    relabel' takes, with DATA one that 'train' takes.
    """
    from patchknn.cli.evaluate_baselines import BaselineChoice
    from patchknn.cli.evaluate_diagnosis import Diagnosis, map_wanted
    from patchknn.cli.evaluate_queries import Embedding
    from patchknn.cli.evaluate_run import Wanted, run_evaluate
    from patchknn.cli.query_wanted import names_in
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
    drawn = map_wanted(map, map_rows, colour, map_points, seed)
    wanted = Wanted(
        format=format,
        split=split,
        slides=slides,
        at=at,
        dask=dask,
        bootstrap=bootstrap,
        seed=seed,
        report=report,
        report_queries=report_queries,
        baselines=BaselineChoice(tuple(baseline or ()), frozen_weights, frozen_backbone),
        diagnosis=Diagnosis(suspects, diagnose, drawn),
        methods=method or (),
        compare=compare or (),
        sweeps=sweep or (),
        by=by or (),
        answers=answers,
        csv=csv,
        calibrated=calibrated,
        fields=names_in(fields),
    )
    return run_evaluate(archive, data or [], settings, embedding, wanted)
