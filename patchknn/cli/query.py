"""``patchknn query``: what do these patches look like, and how sure are we?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import console, options
from patchknn.errors import UsageError

if TYPE_CHECKING:
    from patchknn.archive.snapshot import Snapshot
    from patchknn.cli.query_asked import Asked, ImageSettings
    from patchknn.evaluation.sample import EvenSample
    from patchknn.search.answers import Answer
    from patchknn.search.settings import SearchSettings

_MONTAGE_ROWS = 20


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
    max_per: Annotated[
        tuple[str, int] | None,
        typer.Option(
            "--max-per", metavar="slide|patient N", help="At most N neighbours of each of these."
        ),
    ] = None,
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
    encoder: options.EncoderElsewhere = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    format: options.Format = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Append NDJSON; a rerun resumes."),
    ] = None,
    montage: Annotated[
        Path | None,
        typer.Option("--montage", metavar="PNG", help="Draw queries and neighbours (20 rows)."),
    ] = None,
    slides: options.SlidesFolder = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in each answer what its search took.")
    ] = False,
) -> int:
    """Find the nearest archived patches of each query, their votes and a confidence.

    Two stages: the rows within a Hamming radius of the query's code (widened where they are
    fewer than k), ranked by the L2 distance of their features. Stored rows and .npy features
    need no torch. A query that fails is reported and the rest is answered (exit 3; 1 where none
    is).
    """
    given = list(queries or [])
    _check_usage(given, id, output, format, montage)

    from patchknn.archive.snapshot import open_archive
    from patchknn.cli.query_asked import ImageSettings
    from patchknn.cli.query_inputs import ask_files, ask_stored
    from patchknn.cli.query_output import AnswerWriter
    from patchknn.evaluation.sample import EvenSample
    from patchknn.jobs.cpus import available_cpus
    from patchknn.search.answers import Failure
    from patchknn.search.engine import Searcher
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
    )
    snapshot = open_archive(archive)
    if size is not None and size != snapshot.settings.patch_px:
        message = f"--size {size}: {archive} holds patches of {snapshot.settings.patch_px} px."
        raise UsageError(message)
    searcher = Searcher(snapshot, settings, available_cpus(), explain=explain)
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
    drawn: EvenSample[tuple[Asked, Answer]] = EvenSample(_MONTAGE_ROWS)
    with ExitStack() as stack:
        file = None
        if output is not None:
            from patchknn.cli.answer_file import AnswerFile

            made_with = _made_with(snapshot, settings, images)
            file = stack.enter_context(AnswerFile(output, made_with))
            if file.note is not None:
                console.warn(file.note)
        writer = AnswerWriter(console.output_format(format), settings, file)
        if id:
            asked = ask_stored(snapshot, [*id, *given], patient, writer.skip)
        else:
            asked = ask_files(snapshot, given, images, writer.skip)
        bar = stack.enter_context(console.ProgressBar(None, "query", "queries", output is None))
        for block in asked:
            answers = searcher.search_many(one.query for one in block)
            for one, answer in zip(block, answers, strict=True):
                writer.write(answer, one.content)
                if montage is not None and not isinstance(answer, Failure):
                    drawn.add((one, answer))
            bar.advance(len(block))
    for problem in searcher.problems:
        console.warn(problem)
    if montage is not None:
        _draw(drawn, snapshot, montage, slides)
    if output is not None:
        console.message(
            f"{output}: {writer.answered} answered, {writer.skipped} skipped (answered before), "
            f"{writer.failed} failed."
        )
    return writer.exit_code


def _check_usage(
    queries: list[str],
    ids: list[str] | None,
    output: Path | None,
    style: str | None,
    montage: Path | None,
) -> None:
    if not queries and not ids:
        message = "nothing to query: give images, slides, .npy features, '-', or --id."
        raise UsageError(message)
    if [*queries, *(ids or [])].count("-") > 1:
        message = "stdin ('-') can be read only once."
        raise UsageError(message)
    if output is not None and style not in {None, "ndjson"}:
        message = f"-o writes NDJSON, not {style}: leave --format away."
        raise UsageError(message)
    if montage is not None:
        from patchknn.evaluation.montage import check_montage_path

        check_montage_path(montage)


def _made_with(
    snapshot: Snapshot, settings: SearchSettings, images: ImageSettings
) -> dict[str, Any]:
    """What decides the answers, so that answers made otherwise are not mixed with them."""
    from dataclasses import asdict

    search = asdict(settings)
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


def _draw(
    drawn: EvenSample[tuple[Asked, Answer]], snapshot: Snapshot, path: Path, slides: Path | None
) -> None:
    from patchknn.evaluation.montage import draw_montage
    from patchknn.evaluation.pictures import PictureFinder
    from patchknn.search.query import Query

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
