"""``patchknn slide search``: which archived slides look like this one, and what are they?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from patchknn.cli import options


def search(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The archive to search.")],
    slides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SLIDES]…",
            help="Slides, tile sets, folders or lists of them; '-' reads paths from stdin.",
        ),
    ] = None,
    slide: Annotated[
        list[str] | None,
        typer.Option("--slide", metavar="NAME", help="An archived slide; repeatable; '-': stdin."),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Let all labelled slides ask; say how often it is right."),
    ] = False,
    by: Annotated[
        Literal["hamming", "l2"],
        typer.Option("--by", help="Median of least Hamming, or mean of least L2 distances."),
    ] = "hamming",
    k: Annotated[int, typer.Option("--k", min=1, help="Slides to show and let vote.")] = 5,
    mosaic: Annotated[
        str,
        typer.Option(
            "--mosaic", metavar="P%|N", help="Patches that stand for a slide: a share or a number."
        ),
    ] = "5%",
    clusters: Annotated[
        int, typer.Option("--clusters", min=1, help="Clusters of features that it represents.")
    ] = 9,
    exclude_same: Annotated[
        Literal["none", "slide", "patient"],
        typer.Option("--exclude-same", help="Leave out the slide itself, or all of its patient."),
    ] = "patient",
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="TABLE", help="Slide labels: slide,label; patient,label."),
    ] = None,
    label_field: Annotated[
        str | None,
        typer.Option("--label-field", metavar="FIELD", help="Slide labels from a records' field."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Only slides whose records make this true."),
    ] = None,
    fields: options.Fields = None,
    labelled: Annotated[bool, typer.Option("--labelled", help="Only slides with a label.")] = False,
    matches: Annotated[
        int, typer.Option("--matches", min=0, help="Pairs of patches to show for each slide.")
    ] = 3,
    bootstrap: Annotated[
        int,
        typer.Option("--bootstrap", min=0, help="Draws of patients for intervals."),
    ] = 1000,
    seed: options.Seed = 0,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    patient: Annotated[
        str | None, typer.Option("--patient", help="The patient that SLIDES are of.")
    ] = None,
    slides_dir: options.SlidesFolder = None,
    at: options.At = None,
    encoder: options.EncoderElsewhere = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    format: options.Format = None,
) -> int:
    """Find the archived slides that are most like each slide, and let the nearest 1, 3, 5 vote.

    SLIDES are tiled and embedded as the archive's were; without SLIDES and --slide all archived
    ones ask. A slide is compared by its mosaic, a few patches of every kind that it has (as in
    Yottixel, Kalra 2020); mosaics of the archive are made once and kept in it. What a slide is
    called says --labels, else --label-field, else most of its patches' labels; --where and
    --fields are about attached records, as for 'patchknn query'. The pairs of
    patches that are most alike say why. --evaluate leaves out one patient at a time. Example:
    patchknn slide search ARCHIVE new.svs --patient P7 --labels diagnoses.csv
    """
    from patchknn.cli.query_asked import ImageSettings
    from patchknn.cli.query_wanted import names_in
    from patchknn.cli.slide_search_run import Wanted, run_slide_search
    from patchknn.wholeslide.mosaics.mosaic import MosaicSettings, parse_size
    from patchknn.wholeslide.mosaics.slide_search import SlideSearchSettings

    share, number = parse_size(mosaic)
    wanted = Wanted(
        slides=tuple(slides or ()),
        names=tuple(slide or ()),
        evaluate=evaluate,
        labels=labels,
        label_field=label_field,
        bootstrap=bootstrap,
        seed=seed,
        at=at,
        patient=patient,
        where=where,
        fields=names_in(fields),
        format=format,
    )
    return run_slide_search(
        archive,
        MosaicSettings(share, number, clusters, seed),
        SlideSearchSettings(by, k, exclude_same, labelled, matches),
        ImageSettings(
            encoder=encoder,
            slide_mpp=slide_mpp,
            default_mpp=default_mpp,
            slides_dir=slides_dir,
            patient=patient,
            batch_size=batch_size,
            workers=workers,
            device=device,
        ),
        wanted,
    )
