"""From what stands on ``query``'s command line to queries: stored rows, features, images."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.datasets.listing import iter_patches
from patchknn.datasets.patches import Patch, Problem
from patchknn.errors import ConflictError, PatchknnError
from patchknn.files import quickhash
from patchknn.search.answers import Failure
from patchknn.search.feature_files import FEATURE_SUFFIX, feature_queries
from patchknn.search.query import Query, stored_query
from patchknn.tables import TABLE_SUFFIXES

if TYPE_CHECKING:
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.features import Embedded

STDIN = "-"


@dataclass(frozen=True)
class Asked:
    """One query on its way, and where its picture comes from.

    ``content`` is a short fingerprint of the file that it was made from, None for stored rows.
    """

    query: Query | Failure
    content: str | None = None
    patch: Patch | None = None
    row: int | None = None


@dataclass(frozen=True)
class ImageSettings:
    """How images become features: µm/px of plain images, of slides, of slides without any."""

    encoder: Path | None
    image_mpp: float | None
    slide_mpp: float | None
    default_mpp: float | None
    slides_dir: Path | None
    patient: str | None
    batch_size: int
    workers: int | None
    device: str | None


Skip = Callable[[str, str | None], bool]


def ask_stored(
    snapshot: Snapshot, ids: Iterable[str], patient: str | None, skip: Skip
) -> Iterator[Asked]:
    """Queries for rows of the archive by patch id; ``-`` reads ids from stdin.

    ``patient`` stands for the stored one where it is given.
    """
    for given in ids:
        for patch_id in console.stdin_lines() if given == STDIN else [given]:
            if skip(patch_id, None):
                continue
            try:
                query = stored_query(snapshot, patch_id)
            except PatchknnError as error:
                yield Asked(Failure(patch_id, str(error)))
            else:
                known = patient or query.patient
                yield Asked(replace(query, patient=known), row=snapshot.locate(patch_id))


def ask_files(
    snapshot: Snapshot, arguments: Iterable[str], settings: ImageSettings, skip: Skip
) -> Iterator[Asked]:
    """Queries from images, folders, manifests, slides and ``.npy`` features, in order.

    ``-`` reads such paths from stdin; they are answered as they arrive, those that are there
    together in one batch.
    """
    images = _ImageQueries(snapshot, settings, skip)
    for batch in _batches(arguments, settings.batch_size):
        for is_features, paths in groupby(batch, _is_feature_file):
            if is_features:
                for path in paths:
                    yield from _ask_features(snapshot, path, settings.patient, skip)
            else:
                yield from images.ask(paths)


def _is_feature_file(argument: str) -> bool:
    return argument.lower().endswith(FEATURE_SUFFIX)


def _batches(arguments: Iterable[str], limit: int) -> Iterator[list[str]]:
    for from_stdin, group in groupby(arguments, lambda argument: argument == STDIN):
        if from_stdin:
            yield from available(console.stdin_lines(), limit)
        else:
            yield list(group)


def available(lines: Iterable[str], limit: int) -> Iterator[list[str]]:
    """Lines in lists of at most ``limit``: as many as have arrived, at least one."""
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
    content = _fingerprint(Path(path))
    try:
        for query in feature_queries(Path(path), snapshot.settings.feature_dim):
            if not skip(query.name, content):
                yield Asked(replace(query, patient=patient), content)
    except PatchknnError as error:
        yield Asked(Failure(path, str(error)), content)


class _Unread(NamedTuple):
    patch: Problem
    error: str
    feature: None = None


class _ImageQueries:
    """Embeds patches with the archive's encoder, which is loaded when the first one comes."""

    def __init__(self, snapshot: Snapshot, settings: ImageSettings, skip: Skip) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._skip = skip
        self._hashed: tuple[Path | None, str | None] = (None, None)

    def ask(self, arguments: Iterable[str]) -> Iterator[Asked]:
        on_their_way: deque[tuple[str, str | None]] = deque()
        for result in self._embedded(self._wanted(arguments, on_their_way)):
            name, content = on_their_way.popleft()
            patch = result.patch
            if result.feature is None or isinstance(patch, Problem):
                yield Asked(Failure(name, result.error or f"{name} cannot be read."), content)
                continue
            query = Query(
                name=name,
                feature=result.feature,
                patch_id=patch.id,
                source=patch.source,
                patient=self._settings.patient or patch.patient,
                quickhash=None if content is None else bytes.fromhex(content),
                x=patch.x,
                y=patch.y,
                label=patch.label,
            )
            yield Asked(query, content, patch=patch)

    def _embedded(self, items: Iterator[Patch | Problem]) -> Iterator[Embedded | _Unread]:
        for item in items:  # what cannot be read, or is answered, needs no torch to say so
            if isinstance(item, Patch):
                break
            yield _Unread(item, item.error)
        else:
            return
        from patchknn.indexing.features import embed_patches
        from patchknn.jobs.cpus import available_cpus

        stored, workers = self._snapshot.settings, self._settings.workers
        yield from embed_patches(
            chain([item], items),
            self._extractor,
            size=stored.patch_px,
            mpp=stored.mpp,
            batch_size=self._settings.batch_size,
            workers=available_cpus() if workers is None else workers,
            default_mpp=self._settings.default_mpp,
        )

    def _wanted(
        self, arguments: Iterable[str], on_their_way: deque[tuple[str, str | None]]
    ) -> Iterator[Patch | Problem]:
        settings, stored = self._settings, self._snapshot.settings
        for argument in arguments:
            # One call per argument: a.png of two folders may both be asked for.
            for item in iter_patches(
                [argument],
                size=stored.patch_px,
                mpp=stored.mpp,
                slides_dir=settings.slides_dir,
                slide_mpp=settings.slide_mpp,
                default_mpp=settings.default_mpp,
                image_mpp=settings.image_mpp,
            ):
                name = _query_name(argument, item)
                content = self._content(item.path) if isinstance(item, Patch) else None
                if isinstance(item, Problem) or not self._skip(name, content):
                    on_their_way.append((name, content))
                    yield item

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        from patchknn.bundle import load_bundle
        from patchknn.encoder.devices import choose_device
        from patchknn.encoder.inference import FeatureExtractor

        bundle = self._snapshot.bundle()
        if self._settings.encoder is not None:
            bundle = load_bundle(self._settings.encoder)
            wanted = self._snapshot.settings.encoder_fingerprint
            if bundle.fingerprint != wanted:
                message = (
                    f"{self._settings.encoder} is not the encoder of {self._snapshot.path}: its "
                    f"fingerprint is {bundle.fingerprint[:12]}…, the archive's {wanted[:12]}…."
                )
                raise ConflictError(message)
        device = choose_device(self._settings.device)
        return FeatureExtractor.from_bundle(bundle, device, self._snapshot.settings.precision)

    def _content(self, path: Path) -> str | None:
        if self._hashed[0] != path:
            self._hashed = (path, _fingerprint(path))
        return self._hashed[1]


def _query_name(argument: str, item: Patch | Problem) -> str:
    """What the user would call it: the path as given, for a folder or list what lies below it."""
    given = Path(argument)
    if isinstance(item, Problem):
        is_list = given.is_dir() or given.suffix.lower() in TABLE_SUFFIXES
        return item.name if is_list else argument
    path = str(item.path)
    if item.path == given.absolute():
        path = argument
    else:
        for folder in (given, given.parent):
            if item.path.is_relative_to(folder.absolute()):
                path = str(folder / item.path.relative_to(folder.absolute()))
                break
    return path if item.kind == "image" else f"{path}@{item.x}_{item.y}"


def _fingerprint(path: Path) -> str | None:
    try:
        return quickhash(path).hex()
    except OSError:
        return None
