"""What ``query`` does once its command line is read: ask, answer, write, draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.query_asked import Asked, ImageSettings
from patchknn.cli.query_beside import beside_answers
from patchknn.cli.query_inputs import STDIN, ask_files, ask_stored
from patchknn.cli.query_output import AnswerWriter
from patchknn.cli.query_wanted import Wanted
from patchknn.errors import UsageError
from patchknn.jobs.cpus import available_cpus
from patchknn.search.answers import Answer, Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.cli.answer_file import AnswerFile
    from patchknn.cli.query_plain import PlainQuery
    from patchknn.jobs.cluster import Cluster
    from patchknn.search.calibrated import Calibrated
    from patchknn.search.fields import NeighbourFields


class Answering(Protocol):
    """Whoever answers queries: a Searcher, or one that others search for."""

    @property
    def problems(self) -> Sequence[str]:
        """What was found wrong with the index so far."""

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answers in the queries' order."""


def run_plain(plain: PlainQuery) -> int:
    """Answer a plain line; the exit code."""
    labels = frozenset(plain.labels) if plain.labels else None
    settings = SearchSettings(labels=labels, **plain.settings)
    archive, *given = plain.paths
    wanted = Wanted(format=plain.format, explain=plain.explain)
    return run_query(Path(archive), given, plain.ids, settings, ImageSettings(), wanted)


def run_query(
    archive: Path,
    given: Sequence[str],
    ids: Sequence[str],
    settings: SearchSettings,
    images: ImageSettings,
    wanted: Wanted,
) -> int:
    """Answer ``given``: patch ids after ``ids`` where there are any, else files; the exit code."""
    wanted.check(given, ids)
    snapshot = open_archive(archive, wanted.at)
    if wanted.size is not None and wanted.size != snapshot.settings.patch_px:
        message = (
            f"--size {wanted.size}: {archive} holds patches of {snapshot.settings.patch_px} px."
        )
        raise UsageError(message)
    fields = _neighbour_fields(snapshot, wanted.fields) if wanted.fields else None
    calibrated = _calibrated(snapshot, settings, wanted)
    others = beside_answers(snapshot, settings, wanted, images.default_mpp)
    with ExitStack() as stack:
        if others:
            stack.enter_context(console.outliving_reader())
        if wanted.dask is None:
            threads = available_cpus()
            searcher: Answering = Searcher(snapshot, settings, threads, explain=wanted.explain)
            together = 1
        else:
            from patchknn.jobs.connecting import connected

            cluster = stack.enter_context(connected(wanted.dask, console.warn))
            images = images._replace(cluster=cluster)
            searcher, together = _spread(snapshot, settings, cluster, explain=wanted.explain)
        file = None
        if wanted.output is not None:
            made_with = _made_with(snapshot, settings, images)
            if fields is not None:
                made_with["fields"] = list(fields.names)
            if calibrated is not None:
                made_with["calibrated"] = True
            file = stack.enter_context(_answer_file(wanted.output, made_with))
        style = console.output_format(wanted.format)
        names = () if fields is None else fields.names
        writer = AnswerWriter(style, settings, file, names, calibrated=calibrated is not None)
        if ids:
            asked = ask_stored(snapshot, [*ids, *given], images.patient, writer.skip)
        else:
            asked = ask_files(snapshot, given, images, writer.skip)
        beside = wanted.output is None
        bar = stack.enter_context(console.ProgressBar(None, "query", "queries", beside))
        if STDIN not in given:  # what trickles in is answered as it comes
            asked = _joined(asked, together)
        for block in asked:
            answers: Iterable[Answer | Failure] = searcher.search_many(one.query for one in block)
            if fields is not None:
                answers = fields.beside(list(answers))
            if calibrated is not None:
                answers = calibrated.beside([one.query for one in block], list(answers))
            for one, answer in zip(block, answers, strict=True):
                writer.write(answer, one.content)
                if isinstance(answer, Answer):
                    for other in others:
                        other.add(one, answer)
            bar.advance(len(block))
    for problem in searcher.problems:
        console.warn(problem)
    whole = [other.finish(writer) for other in others]
    if wanted.output is not None:
        console.message(
            f"{wanted.output}: {writer.answered} answered, {writer.skipped} skipped (answered "
            f"before), {writer.failed} failed."
        )
    return writer.exit_code or (0 if all(whole) else 3)


def _spread(
    snapshot: Snapshot, settings: SearchSettings, cluster: Cluster, *, explain: bool
) -> tuple[Answering, int]:
    """A searcher on a cluster, and how many queries it takes together."""
    from patchknn.cli.clusters import spread_over
    from patchknn.search.spread import SpreadSearcher

    spreading = spread_over(cluster, snapshot)
    searcher = SpreadSearcher(snapshot, settings, spreading, explain=explain)
    return searcher, spreading.block * spreading.blocks


def _joined(blocks: Iterable[list[Asked]], size: int) -> Iterator[list[Asked]]:
    """Blocks put together until there are ``size`` queries."""
    joined: list[Asked] = []
    for block in blocks:
        joined += block
        if len(joined) >= size:
            yield joined
            joined = []
    if joined:
        yield joined


def _neighbour_fields(snapshot: Snapshot, names: Sequence[str]) -> NeighbourFields:
    from patchknn.search.fields import NeighbourFields

    return NeighbourFields(snapshot, names)


def _calibrated(snapshot: Snapshot, settings: SearchSettings, wanted: Wanted) -> Calibrated | None:
    if not wanted.calibrated:
        return None
    from patchknn.search.calibrated import Calibrated

    calibrated = Calibrated(snapshot, settings, coverage=wanted.coverage)
    if calibrated.warning is not None:
        console.warn(calibrated.warning)
    return calibrated


def _answer_file(path: Path, made_with: dict[str, Any]) -> AnswerFile:
    from patchknn.cli.answer_file import AnswerFile

    file = AnswerFile(path, made_with)
    if file.note is not None:
        console.warn(file.note)
    return file


def _made_with(
    snapshot: Snapshot, settings: SearchSettings, images: ImageSettings
) -> dict[str, Any]:
    """What decides the answers, so that answers made otherwise are not mixed with them."""
    search = settings._asdict()
    if settings.where is None:  # as answers say that were made before there was such a thing
        del search["where"]
    search["labels"] = None if settings.labels is None else sorted(settings.labels)
    return {
        "archive": snapshot.settings.archive_id,
        "snapshot": snapshot.number,
        **search,
        "image_mpp": images.image_mpp,
        "slide_mpp": images.slide_mpp,
        "default_mpp": images.default_mpp,
        "patient": images.patient,
    }
