"""What is searched for: features, and what is known of the patch that they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError


@dataclass(frozen=True)
class Query:
    """Features (D,) under a name, and the patch's identity where there is one.

    ``patch_id``, ``source``, ``patient`` and ``quickhash`` (16 bytes, of the source's file) tell
    which rows ``exclude_same`` leaves out; ``x``, ``y`` are level-0 pixels, −1 for a plain image.
    ``label`` is the true class where it is known; it takes no part in the search. ``code`` (K/8,)
    is the stored code of a stored row, None where the code is to be made from the features.
    """

    name: str
    feature: npt.NDArray[Any]
    patch_id: str | None = None
    source: str | None = None
    patient: str | None = None
    quickhash: bytes | None = None
    x: int = -1
    y: int = -1
    label: str | None = None
    code: npt.NDArray[np.uint8] | None = None


def stored_query(snapshot: Snapshot, patch_id: str) -> Query:
    """The query that asks for a row of the archive by its patch id.

    Raises InputError where the snapshot has no such row.
    """
    row = snapshot.locate(patch_id)
    if row is None:
        message = f"{patch_id} is no patch of {snapshot.path}; 'patchknn archive list' shows all."
        raise InputError(message)
    shard, local = snapshot.shard_of(row)
    stored = snapshot.row(row)
    record = shard.source_record(int(shard.source[local]))
    x, y = (int(value) for value in shard.coords[local])
    return Query(
        name=patch_id,
        feature=np.array(shard.features[local]),
        patch_id=patch_id,
        source=record.name,
        patient=record.patient,
        quickhash=record.quickhash,
        x=x,
        y=y,
        label=stored.label,
        # Made again alone, an element of the hash vector next to 0 might fall on the other side.
        code=np.array(shard.codes[local]),
    )


def rounded_feature(query: Query, dim: int, dtype: str) -> npt.NDArray[Any]:
    """The query's features (D,) as the archive would have stored them.

    Raises InputError naming the query where they are of another length, not numbers, or too
    large for the archive's dtype.
    """
    feature = np.asarray(query.feature)
    if feature.shape != (dim,) or feature.dtype.kind not in "fiu":
        message = (
            f"{query.name} has features of shape {feature.shape} and type {feature.dtype}; "
            f"the archive's encoder makes {dim} numbers per patch."
        )
        raise InputError(message)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = feature.astype(dtype)
    if not np.isfinite(rounded).all():
        reason = f"too large for {dtype}" if np.isfinite(feature).all() else "NaN or infinite"
        message = f"{query.name} cannot be searched for: some of its features are {reason}."
        raise InputError(message)
    return rounded
