"""Making mosaics: of all slides of an archive, and of one that is not archived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.mosaics import Mosaic, Mosaics
from patchknn.archive.snapshot import Snapshot
from patchknn.hamming.threads import share_out
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings, choose_mosaic
from patchknn.wholeslide.mosaics.slide_rows import SlideRows, slides_of

Int64 = npt.NDArray[np.int64]

_TOGETHER = 16  # slides whose features are in memory at once, for each thread


def make_mosaics(
    snapshot: Snapshot,
    settings: MosaicSettings,
    *,
    known: Mosaics | None = None,
    threads: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Mosaic]:
    """The mosaics of all slides of a snapshot, by name.

    Those of ``known``, made with the same settings, serve again for slides that did not change.
    ``advance`` is told of slides as they are done.
    """
    from threadpoolctl import threadpool_limits

    numbers = {} if known is None else {name: at for at, name in enumerate(known.names)}

    def one(slide: SlideRows) -> Mosaic:
        before = numbers.get(slide.name)
        if known is not None and before is not None:
            mosaic = known.mosaic(before)
            if mosaic.fingerprint == slide.fingerprint:
                return mosaic._replace(patient=slide.patient)
        return _mosaic_of(slide, settings)

    slides = slides_of(snapshot)
    step = _TOGETHER * max(threads, 1)
    # Sums of several threads differ in their last bits, and with them the clusters.
    with threadpool_limits(1):
        for start in range(0, len(slides), step):
            made = share_out(threads, one, slides[start : start + step])
            yield from made
            if advance is not None:
                advance(len(made))


def _mosaic_of(slide: SlideRows, settings: MosaicSettings) -> Mosaic:
    features, coords = slide.features(), slide.coords()
    rows = _chosen(features, coords, settings)
    return Mosaic(
        name=slide.name,
        patient=slide.patient,
        content=slide.content,
        patches=slide.patches,
        features=features[rows],
        codes=slide.codes()[rows],
        coords=coords[rows],
        fingerprint=slide.fingerprint,
    )


def _chosen(features: npt.NDArray[Any], coords: Int64, settings: MosaicSettings) -> Int64:
    """Rows by position, so that they do not hang on the order in which shards have them."""
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    rows: Int64 = order[choose_mosaic(features[order], coords[order], settings)]
    return rows


def query_mosaic(
    features: npt.NDArray[Any],
    coords: Int64,
    settings: MosaicSettings,
    codes: Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]],
    *,
    name: str,
    patient: str | None,
    content: bytes,
) -> Mosaic:
    """The mosaic of a slide that is not archived: ``features`` (n, D) as the archive stores them.

    ``codes`` makes packed codes (m, K/8) of features (m, D), as a bundle does.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        rows = _chosen(features, coords, settings)
    chosen = features[rows]
    # One by one, as a query's code is made: the last bits of a product hang on the rows beside.
    own = np.concatenate([codes(feature[None]) for feature in chosen])
    return Mosaic(name, patient, content, len(features), chosen, own, coords[rows])
