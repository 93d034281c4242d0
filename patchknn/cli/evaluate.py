"""``patchknn evaluate``: how often an archive is right, and what its confidence is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchknn.cli import console, options

if TYPE_CHECKING:
    from patchknn.archive.snapshot import Snapshot
    from patchknn.evaluation.outcomes import Report
    from patchknn.evaluation.queries import LabelledSet
    from patchknn.jobs.cluster import Cluster
    from patchknn.search.answers import Failure
    from patchknn.search.query import Query
    from patchknn.search.settings import SearchSettings


def evaluate(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="The archive to ask.")],
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA…", help="Labelled image folders, manifests or tile sets."),
    ],
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

    A query's own patient does not answer unless --exclude-same says otherwise; missing
    neighbours and classes that the archive lacks count as wrong. NDJSON has one object per
    method. Inputs that cannot be read are reported and the rest is done (exit 3).
    """
    from patchknn.archive.snapshot import open_archive
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
    snapshot = open_archive(archive, at)

    from patchknn.datasets.listing import iter_patches
    from patchknn.evaluation.queries import labelled_set

    listed = iter_patches(
        data,
        size=snapshot.settings.patch_px,
        mpp=snapshot.settings.mpp,
        split=split,
        slides_dir=slides,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
    )
    asked = labelled_set(listed, exclude_same)
    embedding = _Embedding(encoder, device, batch_size, workers or 0, default_mpp)
    with ExitStack() as stack:
        cluster = None
        if dask is not None:
            from patchknn.jobs.connecting import connected

            cluster = stack.enter_context(connected(dask, console.warn))
        reports = [_report(snapshot, asked, settings, embedding, cluster)]
    if baseline is not None:
        from patchknn.evaluation.mean_colour import evaluate_mean_colour

        answered = {outcome.query for outcome in reports[0].outcomes}
        patches = [patch for patch in asked.patches if patch.id in answered]
        reports.append(evaluate_mean_colour(snapshot, patches, settings, slides))
    _say_what_is_missing(reports)
    _write(reports, console.output_format(format))
    return 3 if reports[0].failed else 0


@dataclass(frozen=True)
class _Embedding:
    encoder: Path | None
    device: str | None
    batch_size: int
    workers: int
    default_mpp: float | None


def _report(
    snapshot: Snapshot,
    asked: LabelledSet,
    settings: SearchSettings,
    embedding: _Embedding,
    cluster: Cluster | None,
) -> Report:
    from patchknn.evaluation.evaluate import evaluate as evaluate_queries
    from patchknn.evaluation.ways import in_this_process, spread

    if cluster is None:
        ways, queries = in_this_process(snapshot, settings), _queries(snapshot, asked, embedding)
    else:
        from patchknn.cli.clusters import spread_over

        ways = spread(snapshot, settings, spread_over(cluster, snapshot))
        queries = _queries_on(cluster, snapshot, asked, embedding)
    return evaluate_queries(
        snapshot,
        console.progress(queries, total=len(asked.items), label="queries"),
        settings,
        on_failure=lambda failure: console.fail(failure.error),
        left_out=asked.left_out,
        ways=ways,
    )


def _queries(
    snapshot: Snapshot, asked: LabelledSet, embedding: _Embedding
) -> Iterator[Query | Failure]:
    from patchknn.encoder.devices import choose_device
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.evaluation.queries import archive_encoder, labelled_queries

    bundle = archive_encoder(snapshot, embedding.encoder)
    device, stored = choose_device(embedding.device), snapshot.settings
    return labelled_queries(
        snapshot,
        asked.items,
        FeatureExtractor.from_bundle(bundle, device, stored.precision, stored.orientations),
        batch_size=embedding.batch_size,
        workers=embedding.workers,
        default_mpp=embedding.default_mpp,
    )


def _queries_on(
    cluster: Cluster, snapshot: Snapshot, asked: LabelledSet, embedding: _Embedding
) -> Iterator[Query | Failure]:
    from patchknn.cli.clusters import remote_encoder
    from patchknn.evaluation.queries import queries_of
    from patchknn.indexing.reading import ReadSettings
    from patchknn.indexing.remote import embed_patches_on

    stored = snapshot.settings
    return queries_of(
        embed_patches_on(
            cluster,
            asked.items,
            remote_encoder(snapshot, embedding.encoder, embedding.device),
            ReadSettings(stored.patch_px, stored.mpp, embedding.default_mpp),
            embedding.batch_size,
        )
    )


def _say_what_is_missing(reports: Sequence[Report]) -> None:
    for name, count in reports[0].unknown_classes.items():
        console.warn(f"the archive lacks class {name!r}: its queries ({count}) count as wrong.")
    if reports[0].left_out:
        console.warn(f"patches without a label were left out: {reports[0].left_out}.")
    settings = reports[0].settings
    if settings["unlabelled_rows"] and not settings["labelled_only"]:
        console.warn(
            f"{settings['unlabelled_rows']} of {settings['rows']} archived rows have no label; as "
            "neighbours they count as wrong: --labelled leaves them out."
        )
    for report in reports:
        if count := report.settings.get("unread_rows", 0):
            console.warn(
                f"{report.method} cannot find archived patches whose picture is gone ({count} of "
                f"{report.settings['rows']}): say --slides DIR where their images lie now."
            )
        if count := report.settings.get("unread_queries", 0):
            console.warn(f"{report.method}: queries that cannot be read count as wrong: {count}.")


def _write(reports: Sequence[Report], style: str) -> None:
    if style == "ndjson":
        for report in reports:
            console.write_ndjson(report.as_json())
    elif style == "tsv":
        columns = ["method", *reports[0].figures()]
        rows = [{"method": report.method, **report.figures()} for report in reports]
        joined = [row | {"classes": " ".join(row["classes"])} for row in rows]
        console.write_rows(joined, columns, style)
    else:
        _print_tables(reports)


def _print_tables(reports: Sequence[Report]) -> None:
    methods = [report.method for report in reports]
    figures = [report.figures() for report in reports]
    settings = reports[0].settings
    excluded = settings["exclude_same"]
    own = {"none": "nothing", "self": "the query itself"}.get(
        excluded, f"the query's own {excluded}"
    )
    only = "" if settings["where"] is None else f" Only rows where {settings['where']} answer."
    told = f"{settings['archive']}: {settings['rows']} rows; {own} is left out.{only}"
    console.write_text(f"{told}\n\n")
    console.print_table(
        ["figure", *methods],
        [
            [name, *(column[name] for column in figures)]
            for name in figures[0]
            if name not in {"classes"}
        ],
    )
    console.print_table(
        ["class", "n", *(f"recall, {method}" for method in methods)],
        [
            [entries[0]["class"], entries[0]["n"], *(entry["recall"] for entry in entries)]
            for entries in zip(*(report.class_rows() for report in reports), strict=True)
        ],
        title="Recall by class",
    )
    columns = ("n", "confidence", "accuracy")
    for report in reports:
        console.print_table(
            ["bin", *columns],
            [
                [f"{row['low']:.1f} to {row['high']:.1f}", *(row[name] for name in columns)]
                for row in report.confidence_rows()
                if row["n"]
            ],
            title=f"Accuracy against confidence, {report.method}",
        )
