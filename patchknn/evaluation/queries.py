"""From labelled patches to queries that know their class and patient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle, load_bundle
from patchknn.datasets.patches import Patch, Problem
from patchknn.errors import ConflictError, InputError
from patchknn.files import quickhash
from patchknn.search.answers import Failure
from patchknn.search.query import Query, row_queries

if TYPE_CHECKING:
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.features import Embedded

_ROWS = 1024


@dataclass(frozen=True)
class LabelledSet:
    """What can be evaluated: patches with a label, and Problems in their places.

    ``left_out`` counts the patches that had no label.
    """

    items: tuple[Patch | Problem, ...]
    left_out: int = 0

    @property
    def patches(self) -> list[Patch]:
        """The patches alone."""
        return [item for item in self.items if isinstance(item, Patch)]


def labelled_set(items: Iterable[Patch | Problem], exclude_same: str) -> LabelledSet:
    """Keep what has a label; a patch of unknown patient is a Problem where patients are told apart.

    Raises InputError where patients are to be told apart and no patch names one.
    """
    kept: list[Patch | Problem] = []
    left_out = 0
    for item in items:
        if isinstance(item, Patch) and item.label is None:
            left_out += 1
        else:
            kept.append(item)
    labelled = LabelledSet(tuple(kept), left_out)
    patches = labelled.patches
    if exclude_same != "patient" or not patches:
        return labelled
    if all(patch.patient is None for patch in patches):
        message = (
            f"The data name no patient ({patches[0].id} is the first), so a query's own patient "
            "cannot be left out: give a manifest or slide list with a 'patient' column, or "
            "--exclude-same slide or self."
        )
        raise InputError(message)
    return LabelledSet(tuple(_with_patient(item) for item in kept), left_out)


def labelled_queries(
    snapshot: Snapshot,
    items: Iterable[Patch | Problem],
    extractor: FeatureExtractor,
    *,
    batch_size: int = 64,
    workers: int = 0,
    default_mpp: float | None = None,
) -> Iterator[Query | Failure]:
    """Embed patches as the archive's rows were, in order; what cannot be read is a Failure.

    ``default_mpp`` is the level-0 µm/px of slides that say none.
    """
    # An archive that asks itself need not wait for torch.
    from patchknn.indexing.features import embed_patches

    stored = snapshot.settings
    embedded = embed_patches(
        items,
        extractor,
        size=stored.patch_px,
        mpp=stored.mpp,
        batch_size=batch_size,
        workers=workers,
        default_mpp=default_mpp,
    )
    return queries_of(embedded)


def archived_queries(snapshot: Snapshot) -> Iterator[Query]:
    """Every live row that has a label, as the query that asks for it, in the order of the rows."""
    for shard in snapshot.shards:
        live = shard.live_rows()
        for start in range(0, len(live), _ROWS):
            rows = live[start : start + _ROWS]
            yield from row_queries(snapshot, shard, rows[shard.labels_at(rows) >= 0])


def names_patients(snapshot: Snapshot) -> bool:
    """Whether any source of a snapshot has a patient."""
    return any(
        not shard.patients.all_unknown() and any(shard.patients.take(shard.live_sources()))
        for shard in snapshot.shards
    )


def check_archived(snapshot: Snapshot, exclude_same: str) -> None:
    """Raise InputError where patients are to be told apart and the archive names none."""
    if exclude_same != "patient" or not len(snapshot) or names_patients(snapshot):
        return
    message = (
        f"{snapshot.path} names no patient, so a row's own patient cannot be left out: give "
        "--exclude-same slide or self, or embed from a manifest or slide list with a 'patient' "
        "column."
    )
    raise InputError(message)


def count_archived(snapshot: Snapshot) -> tuple[int, int]:
    """How many live rows have a label, and how many have none."""
    labels = [shard.labels_at(shard.live_rows()) for shard in snapshot.shards]
    known = sum(int((part >= 0).sum()) for part in labels)
    return known, sum(map(len, labels)) - known


def queries_of(embedded: Iterable[Embedded]) -> Iterator[Query | Failure]:
    """The queries for patches that were embedded; what could not be read is a Failure."""
    content = lru_cache(maxsize=256)(content_of)
    for result in embedded:
        patch = result.patch
        if isinstance(patch, Patch) and result.feature is not None:
            yield patch_query(patch, result.feature, content(patch.path))
        else:
            name = patch.id if isinstance(patch, Patch) else patch.name
            yield Failure(name, result.error or f"{name} cannot be read.")


def archive_encoder(snapshot: Snapshot, directory: Path | None) -> Bundle:
    """The bundle that embeds queries: the archive's copy, or the same one kept elsewhere.

    Raises ConflictError naming both fingerprints where ``directory`` holds another encoder.
    """
    if directory is None:
        return snapshot.bundle()
    bundle = load_bundle(directory)
    wanted = snapshot.settings.encoder_fingerprint
    if bundle.fingerprint != wanted:
        message = (
            f"{directory} is not the encoder of {snapshot.path}: its fingerprint is "
            f"{bundle.fingerprint[:12]}…, the archive's {wanted[:12]}…."
        )
        raise ConflictError(message)
    return bundle


def patch_query(patch: Patch, feature: npt.NDArray[np.floating], content: bytes) -> Query:
    """The query for one patch; ``content`` is the quickhash of its file."""
    return Query(
        name=patch.id,
        feature=feature,
        patch_id=patch.id,
        source=patch.source,
        patient=patch.patient,
        quickhash=content,
        x=patch.x,
        y=patch.y,
        label=patch.label,
    )


def content_of(path: Path) -> bytes:
    """The quickhash of a file, empty where it is gone."""
    try:
        return quickhash(path)
    except OSError:
        return b""


def _with_patient(item: Patch | Problem) -> Patch | Problem:
    if isinstance(item, Problem) or item.patient is not None:
        return item
    sentence = (
        f"{item.id} has no patient, so its own patient cannot be left out: fill in the 'patient' "
        "column, or give --exclude-same slide or self."
    )
    return Problem(item.id, sentence)
