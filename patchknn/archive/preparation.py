"""Rows on their way into an archive: checked, rounded, coded, each patch once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.codes import check_codes
from patchknn.archive.ordering import order_by
from patchknn.archive.rows import Rows
from patchknn.archive.settings import ArchiveSettings
from patchknn.bundle import Bundle
from patchknn.errors import ConflictError, InputError

_BLOCK_ROWS = 4096


def check_shapes(rows: Rows, settings: ArchiveSettings) -> None:
    """Raise ConflictError where rows do not fit one another or the archive."""
    n, feature_dim, bits = len(rows), settings.feature_dim, settings.bits
    fits = (
        rows.features.shape == (n, feature_dim)
        and rows.codes.shape == (n, bits // 8)
        and rows.coords.shape == (n, 2)
        and rows.source.shape == (n,)
        and rows.labels.shape == (n,)
        and (rows.thumbnails is None or len(rows.thumbnails) == n)
        and all(len(source.quickhash) == 16 for source in rows.sources)
    )
    if fits and n:
        fits = 0 <= rows.source.min() <= rows.source.max() < len(
            rows.sources
        ) and -1 <= rows.labels.min() <= rows.labels.max() < len(rows.classes)
    if not fits:
        message = (
            f"Rows with features {rows.features.shape} and codes {rows.codes.shape} do not fit an "
            f"archive of {feature_dim} features and {bits} bits."
        )
        raise ConflictError(message)


def prepared(rows: Rows, settings: ArchiveSettings, bundle: Bundle) -> Rows:
    """Features rounded to the archive's dtype, and codes made of the rounded ones.

    Raises InputError naming the source where a feature is not finite as that dtype, or a class
    name is empty, ConflictError where the codes given are of other features.
    """
    if not all(rows.classes):
        message = "A class has an empty name; give its folder or its label a name."
        raise InputError(message)
    dtype = np.dtype(settings.feature_dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        # In C order, for a shard takes rows of it block by block.
        features = np.asarray(rows.features).astype(dtype, order="C", copy=False)
    bad = _first_not_finite(features)
    if bad is not None:
        name = rows.sources[int(rows.source[bad])].name
        message = (
            f"{name}: the encoder gave a feature that is not finite as {dtype}; "
            "check the weights, or make the archive with float32 features."
        )
        raise InputError(message)
    codes = bundle.codes(features)
    if not np.array_equal(codes, rows.codes):
        check_codes(bundle, features, rows.codes)
    return Rows(
        features,
        codes,
        np.asarray(rows.coords, np.int64),
        np.asarray(rows.source, np.int32),
        np.asarray(rows.labels, np.int32),
        rows.sources,
        rows.classes,
        rows.thumbnails,
    )


def _first_not_finite(features: npt.NDArray[Any]) -> int | None:
    for start in range(0, len(features), _BLOCK_ROWS):
        finite = np.isfinite(features[start : start + _BLOCK_ROWS]).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
    return None


def without_repeats(rows: Rows) -> Rows:
    """The same patch of the same source given twice is kept once: it has one id."""
    order = order_by((rows.source, rows.coords[:, 0], rows.coords[:, 1]))
    source, coords = rows.source[order], rows.coords[order]
    repeated = np.zeros(len(rows), bool)
    repeated[1:] = (source[1:] == source[:-1]) & (coords[1:] == coords[:-1]).all(axis=1)
    return rows.take(np.sort(order[~repeated])) if repeated.any() else rows


def nbytes_of(rows: Rows) -> int:
    """About how much of a shard rows will take; their sources aside."""
    images = sum(len(image) for image in rows.thumbnails or ())
    return rows.features.nbytes + rows.codes.nbytes + 24 * len(rows) + images
