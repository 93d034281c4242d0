"""The archived slides that are most like a grid, by the mosaics of slide search."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.wholeslide.grids.grid import Grid
from patchknn.wholeslide.mosaics.kept_mosaics import mosaics_of_archive
from patchknn.wholeslide.mosaics.making import query_mosaic
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings
from patchknn.wholeslide.mosaics.slide_labels import labels_by_patches
from patchknn.wholeslide.mosaics.slide_search import SlideSearcher, SlideSearchSettings
from patchknn.wholeslide.prediction.explaining import archived_vectors, content_of

_UNKNOWN = bytes(16)


class SlidesAlike:
    """Finds the ``k`` nearest archived slides of other patients, labelled by their patches.

    Mosaics of the archive are made where they are not kept yet.
    """

    def __init__(self, snapshot: Snapshot, k: int, threads: int = 1) -> None:
        self._snapshot, self._settings = snapshot, MosaicSettings()
        mosaics = mosaics_of_archive(snapshot, self._settings, threads=threads).mosaics
        labels = labels_by_patches(snapshot, list(mosaics.names))
        self._searcher = SlideSearcher(mosaics, labels, SlideSearchSettings(k=k), threads)

    def __call__(self, grid: Grid) -> list[dict[str, Any]]:
        """Objects for NDJSON, as those of ``slide search``, nearest first."""
        places, stored = grid.places(), self._snapshot.settings
        vectors = archived_vectors(self._snapshot, grid, places)
        mosaic = query_mosaic(
            vectors.astype(np.dtype(stored.feature_dtype)),
            grid.info.corners(places),
            self._settings,
            self._snapshot.bundle().codes,
            name=grid.info.name,
            patient=grid.info.patient,
            content=content_of(grid) or _UNKNOWN,
        )
        found = self._searcher.search(mosaic).neighbours
        return [neighbour.as_json(grid.info.name) for neighbour in found]
