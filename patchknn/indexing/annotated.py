"""Labels of archived patches by annotations that were changed since they were embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchknn.archive.relabel import Correction
from patchknn.archive.snapshot import Snapshot, patch_id
from patchknn.errors import InputError
from patchknn.slides.annotations import find_annotations, read_annotations
from patchknn.slides.cover import label_tiles


def corrections_by_annotations(
    snapshot: Snapshot,
    place: Path,
    *,
    min_cover: float = 0.75,
    by: str | None = None,
    reason: str | None = None,
) -> dict[str, Correction]:
    """The label of every patch of a slide that has annotations in ``place``, by patch id.

    As ``tile`` gives them: the class that covers most of a patch, none where it covers less than
    ``min_cover``. Plain images, and slides without a file there, are left out. Raises InputError
    where an annotation file cannot be read, or no slide has one.
    """
    settings = snapshot.settings
    corrections: dict[str, Correction] = {}
    any_file = False
    for shard in snapshot.shards:
        live = shard.live_rows()
        source = shard.source[live]
        for number in np.unique(source).tolist():
            name = shard.source_names[number]
            file = find_annotations(place, name)
            coords = shard.coords[live[source == number]]
            if file is None or (coords < 0).all():
                continue
            any_file = True
            own = float(shard.source_mpp[number])
            known = settings.mpp is not None and np.isfinite(own)
            side = settings.patch_px * (settings.mpp or 1.0) / own if known else settings.patch_px
            labels = label_tiles(read_annotations(file), coords, side, min_cover)
            for (x, y), label in zip(coords.tolist(), labels, strict=True):
                corrections[patch_id(name, x, y)] = Correction(label, by, reason)
    if not any_file:
        message = f"{place} has annotations of none of the slides in {snapshot.path}."
        raise InputError(message)
    return corrections
