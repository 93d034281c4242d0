"""What is searched for: features, and what is known of the patch that they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Shard, Snapshot, patch_id
from patchknn.errors import InputError
from patchknn.search.answers import Failure
from patchknn.search.rows import RowReader

_NO_NUMBER = 0x7C00  # the exponent of a float16 that is NaN or infinite


class Query(NamedTuple):
    """Features (D,) under a name, and the patch's identity where there is one.

    ``patch_id``, ``source``, ``patient`` and ``quickhash`` (16 bytes, of the source's file) tell
    which rows ``exclude_same`` leaves out; ``x``, ``y`` are level-0 pixels, −1 for a plain image.
    ``label`` is the true class where it is known; it takes no part in the search. ``code`` (K/8,)
    and ``row`` are those of a stored row, None where the code is to be made from the features.
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
    row: int | None = None


def stored_query(snapshot: Snapshot, patch_id: str) -> Query:
    """The query that asks for a row of the archive by its patch id.

    Raises InputError where the snapshot has no such row.
    """
    (query,) = stored_queries(snapshot, [patch_id])
    if isinstance(query, Failure):
        raise InputError(query.error)
    return query


def stored_queries(snapshot: Snapshot, patch_ids: Sequence[str]) -> list[Query | Failure]:
    """The queries that ask for rows of the archive, in the order of their patch ids.

    An id that the snapshot lacks becomes a Failure.
    """
    rows = snapshot.locate_many(patch_ids)
    lack = f"is no patch of {snapshot.path}; 'patchknn archive list' shows all."
    found: list[Query | Failure] = [Failure(name, f"{name!r} {lack}") for name in patch_ids]
    present = np.flatnonzero(rows >= 0)
    for shard, among, local in RowReader(snapshot).by_shard(rows[present]):
        places = present[among].tolist()
        for place, query in zip(places, row_queries(snapshot, shard, local), strict=True):
            found[place] = query._replace(name=patch_ids[place], patch_id=patch_ids[place])
    return found


def row_queries(snapshot: Snapshot, shard: Shard, local: npt.NDArray[np.int64]) -> Iterator[Query]:
    """The queries that ask for rows (m,) of a shard of the snapshot, in their order."""
    source = shard.source_at(local)
    columns = zip(
        shard.features[local],
        # Made again alone, an element of the hash vector next to 0 might fall on the other
        # side: the stored code is the row's.
        shard.codes[local],
        shard.source_names.take(source),
        shard.patients.take(source),
        shard.source_quickhashes[source],
        shard.coords[local].tolist(),
        shard.labels_at(local).tolist(),
        (local + shard.first_row).tolist(),
        strict=True,
    )
    for feature, code, name, patient, quickhash, (x, y), label, row in columns:
        own_id = patch_id(name, x, y)
        yield Query(
            name=own_id,
            feature=feature,
            patch_id=own_id,
            source=name,
            patient=patient,
            quickhash=quickhash.tobytes(),
            x=x,
            y=y,
            label=None if label < 0 else snapshot.classes[label],
            code=code,
            row=row,
        )


def rounded_feature(feature: npt.NDArray[Any], name: str, dim: int, dtype: str) -> npt.NDArray[Any]:
    """A query's features (D,) as the archive would have stored them.

    Raises InputError with the query's name where they are of another length, not numbers, or too
    large for the archive's dtype.
    """
    feature = np.asarray(feature)
    if feature.shape == (dim,) and feature.dtype == dtype and all_finite(feature):
        return feature
    if feature.shape != (dim,) or feature.dtype.kind not in "fiu":
        message = (
            f"{name} has features of shape {feature.shape} and type {feature.dtype}; "
            f"the archive's encoder makes {dim} numbers per patch."
        )
        raise InputError(message)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = feature.astype(dtype)
    if not np.isfinite(rounded).all():
        reason = f"too large for {dtype}" if np.isfinite(feature).all() else "NaN or infinite"
        message = f"{name} cannot be searched for: some of its features are {reason}."
        raise InputError(message)
    return rounded


def all_finite(values: npt.NDArray[Any]) -> bool:
    """Whether none is NaN or infinite, which takes NumPy many times as long to see of float16."""
    if values.dtype == np.float16 and values.size:
        return int((values.view(np.uint16) & _NO_NUMBER).max()) < _NO_NUMBER
    return bool(np.isfinite(values).all())
