"""Slides that are not archived, tiled and embedded as the archive's were, as mosaics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchknn.archive.mosaics import Mosaic
from patchknn.archive.snapshot import Snapshot
from patchknn.cli.query_asked import Asked, ImageSettings
from patchknn.cli.query_images import ImageQueries
from patchknn.datasets.entries import Entry, iter_entries
from patchknn.errors import PatchknnError
from patchknn.search.answers import Failure
from patchknn.search.query import Query, rounded_feature
from patchknn.tables import TABLE_SUFFIXES
from patchknn.wholeslide.mosaics.making import query_mosaic
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings


class SlideFile(NamedTuple):
    """The mosaic of a slide, its ``source`` name as it would be archived, its patches' labels."""

    mosaic: Mosaic
    source: str
    labels: tuple[str | None, ...]


def file_mosaics(
    snapshot: Snapshot,
    arguments: Iterable[str],
    settings: MosaicSettings,
    images: ImageSettings,
) -> Iterator[SlideFile | Failure]:
    """One mosaic a slide, in order; a slide that cannot be read as a whole is a Failure."""
    queries = ImageQueries(snapshot, images, lambda *_: False)
    for argument in arguments:
        seen: set[str] = set()
        for name, patches in groupby(queries.ask([argument]), _slide_of):
            found = _mosaic(snapshot, list(patches), settings)
            seen |= {name, str(Path(name).absolute())}
            seen |= {found.source} if isinstance(found, SlideFile) else set()
            yield found
        for name in _without_patches(argument, seen):
            yield Failure(name, f"{name} holds no tissue, so there is nothing to compare.")


def _without_patches(argument: str, seen: set[str]) -> list[str]:
    """What a folder, list or file names beside the names and files that were ``seen``."""
    given = Path(argument)
    if not given.is_dir() and given.suffix.lower() not in TABLE_SUFFIXES:
        return [] if seen else [argument]
    entries = [one for one in iter_entries([argument]) if isinstance(one, Entry)]
    return [one.name for one in entries if not {one.name, str(one.path)} & seen]


def _slide_of(asked: Asked) -> str:
    query = asked.query
    if isinstance(query, Failure):
        return query.query.rpartition("@")[0] or query.query
    return query.name.removesuffix(f"@{query.x}_{query.y}")


def _mosaic(
    snapshot: Snapshot, patches: list[Asked], settings: MosaicSettings
) -> SlideFile | Failure:
    name = _slide_of(patches[0])
    failed = [asked.query for asked in patches if isinstance(asked.query, Failure)]
    if failed and len(patches) == 1:
        return Failure(name, failed[0].error)
    if failed:
        reason = f"{len(failed)} of its {len(patches)} patches cannot be read: {failed[0].error}"
        return Failure(name, f"{name}: {reason}")
    own = [asked.query for asked in patches if isinstance(asked.query, Query)]
    if own[0].x < 0 and own[0].y < 0:
        message = f"{name} is a plain image, not a slide: 'patchknn query' compares patches."
        return Failure(name, message)
    stored = snapshot.settings
    try:
        features = [
            rounded_feature(one.feature, one.name, stored.feature_dim, stored.feature_dtype)
            for one in own
        ]
        mosaic = query_mosaic(
            np.stack(features),
            np.array([(one.x, one.y) for one in own], np.int64),
            settings,
            snapshot.bundle().codes,
            name=name,
            patient=own[0].patient,
            content=own[0].quickhash or b"",
        )
    except PatchknnError as error:
        return Failure(name, str(error))
    return SlideFile(mosaic, own[0].source or name, tuple(one.label for one in own))
