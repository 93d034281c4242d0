"""Pictures of many rows and patches, read once, by threads that keep a few batches ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.pictures import Picture, PictureFinder, decode
from patchknn.jobs.ahead import made_ahead

BATCH = 256
_AHEAD = 2  # batches that wait, per thread
_PROBED = 16

Batch = TypeVar("Batch")
Look = Callable[[PictureFinder, Batch], list[Picture | None]]


class PicturePool:
    """Reads pictures of one snapshot, all of them as large as the smallest of its thumbnails.

    So a query is seen as the rows are. ``threads`` 1 reads in the calling thread alone. A context
    manager, which closes the slides.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        slides_dir: Path | None = None,
        *,
        default_mpp: float | None = None,
        threads: int = 1,
    ) -> None:
        self.snapshot = snapshot
        self._slides_dir = slides_dir
        self._default_mpp = default_mpp
        self._threads = threads
        self._own = threading.local()
        self._finders: list[PictureFinder] = []
        self._side = _thumbnail_side(snapshot)

    def read(
        self, batches: Iterable[Batch], look: Look[Batch]
    ) -> Iterator[tuple[Batch, list[Picture | None]]]:
        """Each batch with what ``look`` finds for it, in order."""

        def read(batch: Batch) -> tuple[Batch, list[Picture | None]]:
            return batch, [self._shrunk(picture) for picture in look(self._finder(), batch)]

        threads = self._threads if self._threads > 1 else 0
        return made_ahead(read, batches, threads, _AHEAD * threads)

    def close(self) -> None:
        """Close the slides."""
        for finder in self._finders:
            finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _finder(self) -> PictureFinder:
        if not hasattr(self._own, "finder"):
            self._own.finder = PictureFinder(
                self.snapshot, self._slides_dir, default_mpp=self._default_mpp
            )
            self._finders.append(self._own.finder)
        finder: PictureFinder = self._own.finder
        return finder

    def _shrunk(self, picture: Picture | None) -> Picture | None:
        side = self._side
        if picture is None or side is None or picture.shape[0] <= side:
            return picture
        from PIL import Image

        small = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(small)


def any_picture(pool: PicturePool) -> bool:
    """Whether one of a few rows, evenly spread, still has its picture."""
    shards = [(shard, shard.live_rows()) for shard in pool.snapshot.searched]
    shards = [(shard, live) for shard, live in shards if len(live)]
    chosen = [shards[n] for n in np.unique(np.linspace(0, len(shards) - 1, _PROBED).astype(int))]
    each = max(1, _PROBED // max(1, len(chosen)))
    rows = [
        int(live[place]) + shard.first_row
        for shard, live in chosen
        for place in np.unique(np.linspace(0, len(live) - 1, each).astype(int)).tolist()
    ]
    batches = ([row] for row in rows)
    found = pool.read(batches, lambda finder, some: finder.of_rows(some))
    return any(picture is not None for _, (picture,) in found)


def row_batches(snapshot: Snapshot) -> Iterator[npt.NDArray[np.int64]]:
    """The live rows of what is searched, by their global numbers, some at a time.

    Rows lie in the order of their codes; slide by slide each file is opened once.
    """
    for shard in snapshot.searched:
        live = shard.live_rows()
        coords = np.asarray(shard.coords)[live]
        order = np.lexsort((coords[:, 0], coords[:, 1], shard.source_at(live)))
        rows = live[order] + shard.first_row
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]


def _thumbnail_side(snapshot: Snapshot) -> int | None:
    pictures = [
        decode(shard.thumbnail(0) or b"") for shard in snapshot.shards if shard.has_thumbnails
    ]
    return min((picture.shape[0] for picture in pictures if picture is not None), default=None)
