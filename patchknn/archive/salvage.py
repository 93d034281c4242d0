"""What of a damaged shard can be had still: all of its rows, or at least their ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchknn.archive.checksums import span_checksum
from patchknn.archive.description import OPTIONAL_ARRAYS, SHARDS, ShardDescription
from patchknn.archive.edits import ShardEdits
from patchknn.archive.rows import Rows
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard, read_description
from patchknn.archive.shard_list import ShardEntry
from patchknn.archive.snapshot import patch_id
from patchknn.archive.verify_shard import shard_findings
from patchknn.bundle import Bundle
from patchknn.errors import PatchknnError

# A shard can be written again without these: codes follow from features, the others are extra.
_MADE_AGAIN = OPTIONAL_ARRAYS | {"codes"}
_OF_IDS = frozenset(
    {
        *("coords", "source", "source_key", "source_name_bytes", "source_name_offsets"),
        *("source_patient_bytes", "source_patient_offsets"),
    }
)


class Lost(NamedTuple):
    """A patch that is gone, or (``id`` None) ``rows`` of a shard whose names cannot be read."""

    id: str | None
    rows: int
    shard: str


class Place(NamedTuple):
    """An archive and what all of its shards must fit."""

    path: Path
    settings: ArchiveSettings
    bundle: Bundle


class Salvaged(NamedTuple):
    """One shard of a snapshot: whole, or damaged and fit to be written again, or lost (None)."""

    shard: Shard | None
    damaged: bool = True
    lost: tuple[Lost, ...] = ()


def salvage(
    place: Place, entry: ShardEntry, classes: tuple[str, ...], edits: ShardEdits | None = None
) -> Salvaged:
    """Look at one shard, of a snapshot of these classes and with these changes."""
    try:
        description = read_description(place.path, entry, place.settings)
    except (PatchknnError, OSError):
        live = entry.rows - (0 if edits is None else len(edits.removed))
        return Salvaged(None, lost=(Lost(None, live, entry.uuid),))
    shard = Shard(place.path, description, 0, classes, edits)
    if not any(shard_findings(shard, place.bundle, lambda _: None)):
        return Salvaged(shard, damaged=False)
    bad = set(_damaged_arrays(place.path, description))
    with suppress(PatchknnError, OSError, ValueError):
        if bad <= _MADE_AGAIN and _makes_sense(shard):
            return Salvaged(shard)
        if not bad & _OF_IDS:
            return Salvaged(None, lost=tuple(_lost_ids(shard)))
    return Salvaged(None, lost=(Lost(None, len(shard.live_rows()), entry.uuid),))


def salvaged_rows(shard: Shard, bundle: Bundle, classes: tuple[str, ...]) -> Rows:
    """The live rows of a shard as the snapshot has them, their codes made of their features."""
    description = shard.description
    spoilt = {
        name.rpartition("_")[0]
        for name in OPTIONAL_ARRAYS.intersection(_damaged_arrays(shard.path, description))
    }
    if spoilt:
        whole = (name for name in description.arrays if name.rpartition("_")[0] not in spoilt)
        arrays = {name: description.arrays[name] for name in whole}
        shard = Shard(shard.path, description._replace(arrays=arrays), 0, classes, shard.edits)
    rows = shard.rows(codes=bundle.codes(np.array(shard.features)))
    rows.labels, rows.classes = shard.labels.copy(), classes
    return rows.take(shard.live_rows()) if shard.edits.is_any else rows


def _damaged_arrays(path: Path, description: ShardDescription) -> Iterator[str]:
    for name, place in description.arrays.items():
        try:
            found = span_checksum(path / SHARDS / place.file, place.offset, place.nbytes)
        except OSError:
            found = ""
        if found != place.checksum:
            yield name


def _makes_sense(shard: Shard) -> bool:
    """Whether the values that are needed are in range; DamageError or False where not."""
    _ = shard.labels, shard.source_names, shard.patients
    return len(shard.source) == shard.n


def _lost_ids(shard: Shard) -> Iterator[Lost]:
    names = shard.source_names
    for row in shard.live_rows().tolist():
        x, y = shard.coords[row].tolist()
        yield Lost(patch_id(names[int(shard.source[row])], x, y), 1, shard.uuid)
