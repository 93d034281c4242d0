"""What ``query`` does once its command line is read: ask, answer, write, draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.query_asked import Asked, ImageSettings
from patchknn.cli.query_inputs import STDIN, ask_files, ask_stored
from patchknn.cli.query_output import AnswerWriter
from patchknn.errors import UsageError
from patchknn.evaluation.sample import EvenSample
from patchknn.jobs.cpus import available_cpus
from patchknn.search.answers import Answer, Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.cli.answer_file import AnswerFile
    from patchknn.cli.query_plain import PlainQuery
    from patchknn.cli.query_slides import OnSlides
    from patchknn.evaluation.report.query_report import Worklist
    from patchknn.jobs.cluster import Cluster
    from patchknn.search.calibrated import Calibrated
    from patchknn.search.fields import NeighbourFields

_MONTAGE_ROWS = 20


class Answering(Protocol):
    """Whoever answers queries: a Searcher, or one that others search for."""

    @property
    def problems(self) -> Sequence[str]:
        """What was found wrong with the index so far."""

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answers in the queries' order."""


class Wanted(NamedTuple):
    """Where answers go, and what is wanted beside them.

    ``format`` None is a table on a terminal, NDJSON in a pipe; ``size`` in pixels must be the
    archive's; ``slides`` is where the slides of tile sets lie now; ``explain``: say in each answer
    what its search took; ``at`` a snapshot that is not the newest; ``dask`` a cluster that does it;
    ``fields`` of records are put beside each neighbour; ``calibrated``: with what the archive's
    calibration says, whose sets are to have the ``coverage``; ``report`` is a folder for a page
    that shows the ``report_queries`` least sure; ``overlay`` and ``geojson`` are folders of
    predictions that are put back on their slides.
    """

    format: str | None = None
    output: Path | None = None
    montage: Path | None = None
    slides: Path | None = None
    size: int | None = None
    explain: bool = False
    at: int | None = None
    dask: str | None = None
    fields: tuple[str, ...] = ()
    calibrated: bool = False
    coverage: float | None = None
    report: Path | None = None
    report_queries: int = 200
    overlay: Path | None = None
    geojson: Path | None = None

    @property
    def on_slides(self) -> bool:
        """Whether predictions go back on their slides."""
        return self.overlay is not None or self.geojson is not None


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
    _check_usage(given, ids, wanted)
    snapshot = open_archive(archive, wanted.at)
    if wanted.size is not None and wanted.size != snapshot.settings.patch_px:
        message = (
            f"--size {wanted.size}: {archive} holds patches of {snapshot.settings.patch_px} px."
        )
        raise UsageError(message)
    fields = _neighbour_fields(snapshot, wanted.fields) if wanted.fields else None
    calibrated = _calibrated(snapshot, settings, wanted)
    drawn: EvenSample[tuple[Asked, Answer]] = EvenSample(_MONTAGE_ROWS)
    worklist = None if wanted.report is None else _worklist(wanted.report_queries)
    on_slides = _on_slides(snapshot, wanted, images) if wanted.on_slides else None
    with ExitStack() as stack:
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
                if wanted.montage is not None and not isinstance(answer, Failure):
                    drawn.add((one, answer))
                if worklist is not None and isinstance(answer, Answer):
                    row = one.query.row if isinstance(one.query, Query) else None
                    worklist.add(answer, row, one.patch)
                if on_slides is not None and not isinstance(answer, Failure):
                    on_slides.add(one.patch, answer)
            bar.advance(len(block))
    for problem in searcher.problems:
        console.warn(problem)
    if wanted.montage is not None:
        _draw(drawn, snapshot, wanted.montage, wanted.slides)
    if wanted.report is not None and worklist is not None:
        _report(wanted.report, snapshot, worklist, settings, wanted.slides, writer)
    if on_slides is not None:
        on_slides.finish()
    if wanted.output is not None:
        console.message(
            f"{wanted.output}: {writer.answered} answered, {writer.skipped} skipped (answered "
            f"before), {writer.failed} failed."
        )
    return writer.exit_code or (3 if on_slides is not None and on_slides.failed else 0)


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


def _check_usage(queries: Sequence[str], ids: Sequence[str], wanted: Wanted) -> None:
    if not queries and not ids:
        message = "nothing to query: give images, slides, .npy features, '-', or --id."
        raise UsageError(message)
    if [*queries, *ids].count("-") > 1:
        message = "stdin ('-') can be read only once."
        raise UsageError(message)
    if wanted.output is not None and wanted.format not in {None, "ndjson"}:
        message = f"-o writes NDJSON, not {wanted.format}: leave --format away."
        raise UsageError(message)
    if wanted.on_slides and wanted.output is not None:
        message = (
            "-o goes on where it stopped, but --overlay and --geojson need all tiles of a slide: "
            "send stdout to a file instead."
        )
        raise UsageError(message)
    if wanted.explain and wanted.format == "tsv":
        message = "TSV has no place for --explain: use --format ndjson or table."
        raise UsageError(message)
    if wanted.montage is not None:
        from patchknn.evaluation.montage import check_montage_path

        check_montage_path(wanted.montage)
    if wanted.report is not None:
        from patchknn.cli.report import check_report

        check_report(wanted.report, wanted.report_queries)


def names_in(text: str | None) -> tuple[str, ...]:
    """The names in a list with commas; one with a comma in it stands in double quotes."""
    if text is None:
        return ()
    import csv

    try:
        names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error:
        names = []
    if not names or not all(names):
        message = f"--fields {text}: give names with commas between them, as in --fields a,b."
        raise UsageError(message)
    return tuple(names)


def _on_slides(snapshot: Snapshot, wanted: Wanted, images: ImageSettings) -> OnSlides:
    from patchknn.cli.query_slides import OnSlides

    return OnSlides(snapshot, wanted.overlay, wanted.geojson, images.default_mpp)


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


def _worklist(count: int) -> Worklist:
    from patchknn.evaluation.report.query_report import Worklist

    return Worklist(count)


def _report(
    folder: Path,
    snapshot: Snapshot,
    worklist: Worklist,
    settings: SearchSettings,
    slides: Path | None,
    writer: AnswerWriter,
) -> None:
    from patchknn.cli.report import write_query_report

    notes = []
    if writer.skipped:
        notes.append(f"Queries that were answered before are not shown: {writer.skipped}.")
    if writer.failed:
        notes.append(f"Queries that could not be answered: {writer.failed}.")
    write_query_report(folder, snapshot, worklist, settings, slides, notes)


def _draw(
    drawn: EvenSample[tuple[Asked, Answer]], snapshot: Snapshot, path: Path, slides: Path | None
) -> None:
    from patchknn.evaluation.montage import draw_montage
    from patchknn.evaluation.pictures import PictureFinder

    shown = drawn.items()
    if not shown:
        console.warn(f"{path} is not drawn: no query was answered.")
        return
    with PictureFinder(snapshot, slides) as finder:
        pictures = []
        for asked, _ in shown:
            if isinstance(asked.query, Query) and asked.query.row is not None:
                pictures.append(finder.of_row(asked.query.row))
            else:
                pictures.append(None if asked.patch is None else finder.of_patch(asked.patch))
    answers = [answer for _, answer in shown]
    draw_montage(answers, snapshot, path, pictures, slides, of=drawn.seen)
    more = f" ({len(shown)} of {drawn.seen} answers)" if len(shown) < drawn.seen else ""
    console.message(f"{path} is drawn{more}.")
