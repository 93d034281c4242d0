"""What ``evaluate`` does once its command line is read: ask, judge, compare, print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.evaluate_answers import AnswersFile, answers_file
from patchknn.cli.evaluate_baselines import BaselineChoice, PictureSource, asked_of, baselines
from patchknn.cli.evaluate_diagnosis import Diagnosis
from patchknn.cli.evaluate_methods import (
    method_contestants,
    sweep_contestants,
    sweep_section,
    ways_to_search,
)
from patchknn.cli.evaluate_output import say_how_sure, say_what_is_missing, write_figures
from patchknn.cli.report import Sampling, check_report, write_evaluation_report
from patchknn.evaluation import by_fields
from patchknn.evaluation.by_fields import QueryFields, field_rows
from patchknn.evaluation.compare import with_intervals
from patchknn.evaluation.csv_files import check_folder, figure_tables, section_tables, write_csv
from patchknn.evaluation.evaluate import METHOD, Contestant, evaluate_all
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.queries import LabelledSet, labelled_set
from patchknn.evaluation.sections import Section
from patchknn.evaluation.sweeps import read_sweep
from patchknn.search.answers import Answer, Failure
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.archive.calibration import Calibration
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
    that queries are told apart by; ``answers`` and ``csv`` are where these go. ``report`` is a
    folder for a page that shows ``report_queries`` of the queries; ``baselines`` says what else is
    judged, ``diagnosis`` what else is looked for; ``calibrated``: figures
    of the archive's calibration too.
    """

    format: str | None = None
    split: str | None = None
    slides: Path | None = None
    at: int | None = None
    dask: str | None = None
    bootstrap: int = 0
    seed: int = 0
    report: Path | None = None
    report_queries: int = 200
    diagnosis: Diagnosis = Diagnosis()
    baselines: BaselineChoice = BaselineChoice()
    methods: Sequence[str] = ()
    compare: Sequence[Path] = ()
    sweeps: Sequence[str] = ()
    by: Sequence[str] = ()
    answers: Path | None = None
    csv: Path | None = None
    calibrated: bool = False


def run_evaluate(
    archive: Path,
    data: Sequence[str],
    settings: SearchSettings,
    embedding: Embedding,
    wanted: Wanted,
) -> int:
    """Judge an archive by labelled data, or by its own rows where there are none; the exit code."""
    if wanted.report is not None:
        check_report(wanted.report, wanted.report_queries)
    snapshot = open_archive(archive, wanted.at)
    wanted.diagnosis.check(snapshot, own_rows=not data)
    others = [open_archive(path) for path in wanted.compare]
    sweeps = [read_sweep(text) for text in wanted.sweeps]
    if wanted.csv is not None:
        check_folder(wanted.csv)
    fields = QueryFields(snapshot, wanted.by) if wanted.by else None
    calibrated = _calibrated(snapshot, settings, own=not data) if wanted.calibrated else None
    asked = _asked(snapshot, data, settings, embedding, wanted) if data else None
    sampling = Sampling(wanted.report_queries)
    sinks: list[Sink] = [sampling] if wanted.report is not None else []
    if fields is not None:
        sinks.append(lambda query, _: fields.add(query))
    with ExitStack() as stack:
        cluster = None
        if wanted.dask is not None:
            from patchknn.jobs.connecting import connected

            cluster = stack.enter_context(connected(wanted.dask, console.warn))
        methods = method_contestants(snapshot, settings, wanted.methods, cluster)
        swept = sweep_contestants(snapshot, settings, sweeps, cluster)
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
        if calibrated is not None:
            from patchknn.evaluation.calibrated_figures import calibrated_figures

            figures = calibrated_figures(calibrated, evaluations[0].outcomes, snapshot.classes)
            evaluations[0] = replace(evaluations[0], calibrated=figures)
        sections = sweep_section(sweeps, swept_judged)
        if fields is not None:
            rows = field_rows(fields, evaluations, wanted.bootstrap, wanted.seed)
            sections.append(Section("by_field", "By field", by_fields.COLUMNS, rows))
        for other in others:
            its = _asked(other, data, settings, embedding, wanted) if data else None
            method = f"{METHOD} on {other.path}"
            one = Contestant(method, settings, ways_to_search(other, settings, cluster))
            its_sinks = [] if answers is None else [answers.sink([method])]
            own = embedding._replace(encoder=None)
            evaluations += _judged(other, its, [one], own, cluster, its_sinks, answers)
        n_pictures = 0 if asked is None else len(evaluations[0].outcomes)
        choice = wanted.baselines.chosen(
            len(snapshot) + n_pictures, console.output_format(wanted.format)
        )
        where = PictureSource(
            wanted.slides, embedding.default_mpp, embedding.workers, embedding.device
        )
        beside = baselines(snapshot, settings, choice, where)
        if (found := stack.enter_context(beside)) is not None:
            evaluations += found.evaluate(asked_of(snapshot, asked, evaluations[0]))
    evaluations = with_intervals(evaluations, wanted.bootstrap, wanted.seed)
    wanted.diagnosis.make(snapshot, asked, evaluations[0])
    say_what_is_missing(evaluations)
    if wanted.bootstrap:
        say_how_sure(evaluations)
    write_figures(evaluations, console.output_format(wanted.format), sections)
    if wanted.csv is not None:
        write_csv(wanted.csv, figure_tables(evaluations) | section_tables(sections))
    if wanted.report is not None:
        patches = [] if asked is None else asked.patches
        page = (wanted.report, snapshot, evaluations, settings, sampling, patches)
        write_evaluation_report(*page, wanted.slides)
    return 3 if any(one.failed for one in evaluations) else 0


def _calibrated(snapshot: Snapshot, settings: SearchSettings, *, own: bool) -> Calibration:
    from patchknn.search.calibrated import Calibrated

    calibrated = Calibrated(snapshot, settings)
    if calibrated.warning is not None:
        console.warn(calibrated.warning)
    if own and calibrated.calibration.own:
        console.warn(
            "the calibration was made of the same rows, which praise it: judge it by DATA of "
            "other patients."
        )
    return calibrated.calibration


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
