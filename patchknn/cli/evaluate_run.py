"""What ``evaluate`` does once its command line is read: ask, judge, compare, print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.evaluate_diagnosis import Diagnosis
from patchknn.cli.evaluate_output import say_what_is_missing, write_figures
from patchknn.evaluation.evaluate import METHOD, Contestant, evaluate_all
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.queries import LabelledSet, labelled_set
from patchknn.evaluation.ways import in_this_process, spread
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
    snapshot that is not the newest, ``dask`` a cluster that does it.
    """

    format: str | None = None
    split: str | None = None
    slides: Path | None = None
    at: int | None = None
    dask: str | None = None
    baseline: str | None = None
    diagnosis: Diagnosis = Diagnosis()


def run_evaluate(
    archive: Path,
    data: Sequence[str],
    settings: SearchSettings,
    embedding: Embedding,
    wanted: Wanted,
) -> int:
    """Judge an archive by labelled data, or by its own rows where there are none; the exit code."""
    snapshot = open_archive(archive, wanted.at)
    wanted.diagnosis.check(snapshot, own_rows=not data)
    asked = _asked(snapshot, data, settings, embedding, wanted) if data else None
    sinks: list[Sink] = []
    with ExitStack() as stack:
        cluster = None
        if wanted.dask is not None:
            from patchknn.jobs.connecting import connected

            cluster = stack.enter_context(connected(wanted.dask, console.warn))
        evaluations = _judged(snapshot, asked, settings, embedding, cluster, sinks)
    evaluations += _baselines(snapshot, asked, settings, wanted, evaluations[0])
    wanted.diagnosis.make(snapshot, asked, evaluations[0])
    say_what_is_missing(evaluations)
    write_figures(evaluations, console.output_format(wanted.format))
    return 3 if evaluations[0].failed else 0


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
    settings: SearchSettings,
    embedding: Embedding,
    cluster: Cluster | None,
    sinks: Sequence[Sink],
) -> list[Evaluation]:
    """What came of the queries by each way to search; ``sinks`` see all answers."""
    if cluster is None:
        ways = in_this_process(snapshot, settings)
    else:
        from patchknn.cli.clusters import spread_over

        ways = spread(snapshot, settings, spread_over(cluster, snapshot))
    if asked is None:
        from patchknn.evaluation.queries import archived_queries, count_archived

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
            sink(query, answers)

    return evaluate_all(
        snapshot,
        console.progress(queries, total=total, label="queries"),
        [Contestant(METHOD, settings, ways)],
        on_failure=lambda failure: console.fail(failure.error),
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
