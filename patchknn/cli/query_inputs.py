"""From what stands on ``query``'s command line to queries: stored rows, features, images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.cli.query_asked import Asked, ImageSettings, Skip, fingerprint
from patchknn.errors import PatchknnError
from patchknn.search.answers import Failure
from patchknn.search.engine import BLOCK
from patchknn.search.feature_files import FEATURE_SUFFIX, feature_queries
from patchknn.search.query import Query, stored_queries

if TYPE_CHECKING:
    from patchknn.cli.query_images import ImageQueries

STDIN = "-"


def ask_stored(
    snapshot: Snapshot, ids: Iterable[str], patient: str | None, skip: Skip
) -> Iterator[list[Asked]]:
    """Queries for rows of the archive by patch id, in blocks; ``-`` reads ids from stdin.

    ``patient`` stands for the stored one where it is given.
    """
    for batch in _batches(ids, BLOCK):
        wanted = [patch_id for patch_id in batch if not skip(patch_id, None)]
        block = []
        for query in stored_queries(snapshot, wanted):
            if isinstance(query, Query) and patient:
                query = query._replace(patient=patient)  # noqa: PLW2901
            block.append(Asked(query))
        yield block


def ask_files(
    snapshot: Snapshot, arguments: Iterable[str], settings: ImageSettings, skip: Skip
) -> Iterator[list[Asked]]:
    """Queries from images, folders, manifests, slides and ``.npy`` features, in order, in blocks.

    ``-`` reads such paths from stdin; they are answered as they arrive, those that are there
    together in one batch.
    """
    images: ImageQueries | None = None
    # A cluster takes many batches at once.
    limit = settings.batch_size * (1 if settings.cluster is None else settings.cluster.room)
    for batch in _batches(arguments, limit):
        for is_features, paths in groupby(batch, _is_feature_file):
            if is_features:
                for path in paths:
                    yield from _blocks(_ask_features(snapshot, path, settings.patient, skip), BLOCK)
            else:
                from patchknn.cli.query_images import ImageQueries

                images = images or ImageQueries(snapshot, settings, skip)
                yield from _blocks(images.ask(paths), settings.batch_size)


def _blocks(asked: Iterator[Asked], size: int) -> Iterator[list[Asked]]:
    while block := list(islice(asked, size)):
        yield block


def _is_feature_file(argument: str) -> bool:
    return argument.lower().endswith(FEATURE_SUFFIX)


def _batches(arguments: Iterable[str], limit: int) -> Iterator[list[str]]:
    for from_stdin, group in groupby(arguments, lambda argument: argument == STDIN):
        if from_stdin:
            yield from available(console.stdin_lines(), limit)
        else:
            while batch := list(islice(group, limit)):
                yield batch


def available(lines: Iterable[str], limit: int) -> Iterator[list[str]]:
    """Lines in lists of at most ``limit``: as many as have arrived, at least one."""
    import queue
    import threading

    waiting: queue.Queue[str | BaseException | None] = queue.Queue(maxsize=4 * limit)

    def read() -> None:
        try:
            for line in lines:
                waiting.put(line)
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001  raised again where it is seen
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    ended = False
    while not ended:
        batch: list[str] = []
        while len(batch) < limit:
            try:
                line = waiting.get(block=not batch)
            except queue.Empty:
                break
            if isinstance(line, BaseException):
                raise line
            if line is None:
                ended = True
                break
            batch.append(line)
        if batch:
            yield batch


def _ask_features(
    snapshot: Snapshot, path: str, patient: str | None, skip: Skip
) -> Iterator[Asked]:
    content = fingerprint(Path(path))
    try:
        for query in feature_queries(Path(path), snapshot.settings.feature_dim):
            if not skip(query.name, content):
                yield Asked(query._replace(patient=patient), content)
    except PatchknnError as error:
        yield Asked(Failure(path, str(error)), content)
