"""Images, folders, manifests and slides as queries, by the archive's own encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.cli.query_asked import Asked, ImageSettings, Skip, fingerprint
from patchknn.datasets.entries import TILESET_SUFFIXES
from patchknn.datasets.listing import iter_patches
from patchknn.datasets.patches import Patch, Problem
from patchknn.search.answers import Failure
from patchknn.search.query import Query
from patchknn.tables import TABLE_SUFFIXES

if TYPE_CHECKING:
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.features import Embedded
    from patchknn.jobs.cluster import Cluster


class _Unread(NamedTuple):
    patch: Problem
    error: str
    feature: None = None


class ImageQueries:
    """Embeds patches with the archive's encoder, which is loaded when the first one comes."""

    def __init__(self, snapshot: Snapshot, settings: ImageSettings, skip: Skip) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._skip = skip
        self._hashed: tuple[Path | None, str | None] = (None, None)

    def ask(self, arguments: Iterable[str]) -> Iterator[Asked]:
        """One query per patch of the arguments, in order; what cannot be read is a Failure."""
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
        settings = self._settings
        wanted = chain([item], items)
        yield from (
            self._embedded_here(wanted)
            if settings.cluster is None
            else (self._embedded_on(settings.cluster, wanted))
        )

    def _embedded_here(self, items: Iterator[Patch | Problem]) -> Iterator[Embedded]:
        from patchknn.indexing.features import embed_patches
        from patchknn.jobs.cpus import available_cpus

        stored, workers = self._snapshot.settings, self._settings.workers
        yield from embed_patches(
            items,
            self._extractor,
            size=stored.patch_px,
            mpp=stored.mpp,
            batch_size=self._settings.batch_size,
            workers=available_cpus() if workers is None else workers,
            default_mpp=self._settings.default_mpp,
        )

    def _embedded_on(
        self, cluster: Cluster, items: Iterator[Patch | Problem]
    ) -> Iterator[Embedded]:
        from patchknn.cli.clusters import remote_encoder
        from patchknn.indexing.reading import ReadSettings
        from patchknn.indexing.remote import embed_patches_on

        settings, stored = self._settings, self._snapshot.settings
        return embed_patches_on(
            cluster,
            items,
            remote_encoder(self._snapshot, settings.encoder, settings.device),
            ReadSettings(stored.patch_px, stored.mpp, settings.default_mpp),
            settings.batch_size,
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
        from patchknn.encoder.devices import choose_device
        from patchknn.encoder.inference import FeatureExtractor
        from patchknn.evaluation.queries import archive_encoder

        bundle = archive_encoder(self._snapshot, self._settings.encoder)
        device = choose_device(self._settings.device)
        stored = self._snapshot.settings
        return FeatureExtractor.from_bundle(bundle, device, stored.precision, stored.orientations)

    def _content(self, path: Path) -> str | None:
        if self._hashed[0] != path:
            self._hashed = (path, fingerprint(path))
        return self._hashed[1]


def _query_name(argument: str, item: Patch | Problem) -> str:
    """What the user would call it: the path as given, for a folder or list what lies below it.

    Tiles of a tile set go by their patch id: where the slide lies now is nobody's question.
    """
    given = Path(argument)
    if isinstance(item, Problem):
        is_list = given.is_dir() or given.suffix.lower() in TABLE_SUFFIXES
        return item.name if is_list else argument
    folder = given if given.is_dir() else given.parent
    if item.path == given.absolute():
        path = argument
    elif given.suffix.lower() not in TILESET_SUFFIXES and item.path.is_relative_to(
        folder.absolute()
    ):
        path = str(folder / item.path.relative_to(folder.absolute()))
    else:
        return item.id
    return path if item.kind == "image" else f"{path}@{item.x}_{item.y}"
