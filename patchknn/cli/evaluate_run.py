"""What ``evaluate`` does once its command line is read: ask, judge, compare, print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.evaluate_answers import AnswersFile, answers_file
from patchknn.cli.evaluate_methods import (
    compared_contestant,
    method_contestants,
    sweep_contestants,
    sweep_section,
)
from patchknn.cli.evaluate_output import say_how_sure, say_what_is_missing, write_figures
from patchknn.evaluation import by_fields
from patchknn.evaluation.by_fields import QueryFields, field_rows, manifest_columns
from patchknn.evaluation.compare import with_intervals
from patchknn.evaluation.csv_files import check_folder, figure_tables, section_tables, write_csv
from patchknn.evaluation.evaluate import Contestant, evaluate_all
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.queries import LabelledSet, labelled_set
from patchknn.evaluation.sections import Section
from patchknn.evaluation.sweeps import read_sweep
from patchknn.search.answers import Answer, Failure
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.jobs.cluster import Cluster

Sink = Callable[[Query, Sequence[Answer]], None]


class Embedding(NamedTuple):
    """How queries are embedded; ``encoder`` where the archive's copy has no network."""

    encoder: Path | None = None
    device: str | None = None
    batch_size: int = 64
    workers: int = 0
    slide_mpp: float | None = None
    default_mpp: float | None = None


class Wanted(NamedTuple):
    """What is wanted beside the figures, and how they are printed.

    ``split`` picks rows of manifests, ``slides`` is where the slides of tile sets lie now, ``at`` a
    snapshot that is not the newest, ``dask`` a cluster that does it. ``bootstrap`` draws of
    patients by ``seed`` say how sure the figures are. ``methods`` are first stages beside the
    main one, ``compare`` other archives, ``sweeps`` as ``read_sweep`` takes them, ``by`` fields
    that queries are told apart by; ``answers`` and ``csv`` are where these go.
    """

    format: str | None = None
    split: str | None = None
    slides: Path | None = None
    at: int | None = None
    dask: str | None = None
    baseline: str | None = None
    bootstrap: int = 0
    seed: int = 0
    methods: Sequence[str] = ()
    compare: Sequence[Path] = ()
    sweeps: Sequence[str] = ()
    by: Sequence[str] = ()
    answers: Path | None = None
    csv: Path | None = None


def run_evaluate(
    archive: Path,
    data: Sequence[str],
    settings: SearchSettings,
    embedding: Embedding,
    wanted: Wanted,
) -> int:
    """Judge an archive by labelled data, or by its own rows where there are none; the exit code."""
    snapshot = open_archive(archive, wanted.at)
    others = [open_archive(path) for path in dict.fromkeys(wanted.compare)]
    sweeps = [read_sweep(text) for text in wanted.sweeps]
    if wanted.csv is not None:
        check_folder(wanted.csv)
    fields = None
    if wanted.by:
        fields = QueryFields(snapshot, wanted.by, manifest_columns(data, wanted.by))
    asked = _asked(snapshot, data, settings, embedding, wanted) if data else None
    sinks: list[Sink] = []
    if fields is not None:
        sinks.append(lambda query, _: fields.add(query))
    with ExitStack() as stack:
        cluster = None
        if wanted.dask is not None:
            from patchknn.jobs.connecting import connected

            cluster = stack.enter_context(connected(wanted.dask, console.warn))
        methods = method_contestants(snapshot, settings, wanted.methods, cluster)
        swept = sweep_contestants(snapshot, settings, sweeps, cluster)
        rivals = [compared_contestant(other, settings, cluster) for other in others]
        answers = None
        if wanted.answers is not None:
            several = len(methods) + len(others) > 1
            answers = stack.enter_context(answers_file(wanted.answers, several=several))
            sinks.append(answers.sink([one.method for one in methods]))
        entered = [*methods, *swept]
        judged = _judged(
            snapshot, asked, entered, embedding, cluster, sinks, answers, seen=len(methods)
        )
        evaluations, swept_judged = judged[: len(methods)], judged[len(methods) :]
        sections = sweep_section(sweeps, swept_judged, wanted.bootstrap, wanted.seed)
        if fields is not None:
            rows = field_rows(fields, evaluations, wanted.bootstrap, wanted.seed)
            sections.append(Section("by_field", "By field", by_fields.COLUMNS, rows))
        for other, rival in zip(others, rivals, strict=True):
            its = _asked(other, data, settings, embedding, wanted) if data else None
            its_sinks = [] if answers is None else [answers.sink([rival.method])]
            own = embedding._replace(encoder=None)
            evaluations += _judged(other, its, [rival], own, cluster, its_sinks, answers)
    evaluations += _baselines(snapshot, asked, settings, wanted, evaluations[0])
    evaluations = with_intervals(evaluations, wanted.bootstrap, wanted.seed)
    say_what_is_missing(evaluations)
    if wanted.bootstrap:
        say_how_sure(evaluations)
    write_figures(evaluations, console.output_format(wanted.format), sections)
    if wanted.csv is not None:
        write_csv(wanted.csv, figure_tables(evaluations) | section_tables(sections))
    return 3 if any(one.failed for one in evaluations) else 0


def _asked(
    snapshot: Snapshot,
    data: Sequence[str],
    settings: SearchSettings,
    embedding: Embedding,
    wanted: Wanted,
) -> LabelledSet:
    from patchknn.datasets.listing import iter_patches

    listed = iter_patches(
        data,
        size=snapshot.settings.patch_px,
        mpp=snapshot.settings.mpp,
        split=wanted.split,
        slides_dir=wanted.slides,
        slide_mpp=embedding.slide_mpp,
        default_mpp=embedding.default_mpp,
    )
    return labelled_set(listed, settings.exclude_same)


def _judged(
    snapshot: Snapshot,
    asked: LabelledSet | None,
    contestants: Sequence[Contestant],
    embedding: Embedding,
    cluster: Cluster | None,
    sinks: Sequence[Sink],
    answers_file: AnswersFile | None,
    *,
    seen: int = 1,
) -> list[Evaluation]:
    """What came of the queries by each contestant; ``sinks`` see the answers of the first."""
    if asked is None:
        from patchknn.evaluation.queries import archived_queries, check_archived, count_archived

        check_archived(snapshot, contestants[0].settings.exclude_same)
        queries: Iterator[Query | Failure] = archived_queries(snapshot)
        total, left_out = count_archived(snapshot)
    else:
        if cluster is None:
            queries = _queries(snapshot, asked, embedding)
        else:
            queries = _queries_on(cluster, snapshot, asked, embedding)
        total, left_out = len(asked.items), asked.left_out

    def on_answered(query: Query, answers: Sequence[Answer]) -> None:
        for sink in sinks:
            sink(query, answers[:seen])

    def on_failure(failure: Failure) -> None:
        console.fail(failure.error)
        if answers_file is not None:
            answers_file.fail(failure)

    return evaluate_all(
        snapshot,
        console.progress(queries, total=total, label="queries"),
        contestants,
        on_failure=on_failure,
        left_out=left_out,
        on_answered=on_answered,
    )


def _baselines(
    snapshot: Snapshot,
    asked: LabelledSet | None,
    settings: SearchSettings,
    wanted: Wanted,
    judged: Evaluation,
) -> list[Evaluation]:
    """The same queries by methods that keep one honest."""
    if wanted.baseline is None or asked is None:
        return []
    from patchknn.evaluation.mean_colour import evaluate_mean_colour

    answered = set(judged.outcomes.queries)
    patches = [patch for patch in asked.patches if patch.id in answered]
    return [evaluate_mean_colour(snapshot, patches, settings, wanted.slides)]


def _queries(
    snapshot: Snapshot, asked: LabelledSet, embedding: Embedding
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
    cluster: Cluster, snapshot: Snapshot, asked: LabelledSet, embedding: Embedding
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
