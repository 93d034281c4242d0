"""Which features an archive takes: their width, encoder, number type and patch size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from patchknn.archive.imported import noted_encoder
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import UsageError
from patchknn.indexing.import_figures import OF_A_SLIDE
from patchknn.indexing.import_parts import Found

Value = TypeVar("Value")
# Figures that are made of rounded ones differ by this much and mean the same.
_NEAR = 0.02


class Asked(NamedTuple):
    """What was asked for against what files say; None where nothing was.

    ``encoder``: one was given by hand, so that names of encoders need not agree.
    """

    feature_dtype: str | None = None
    patch_px: int | None = None
    mpp: float | None = None
    encoder: bool = False


class Fit(NamedTuple):
    """What features must be like. ``encoder`` None: nobody said by what they were made."""

    archive: Path
    dim: int
    feature_dtype: str
    encoder: str | None
    patch_px: int
    mpp: float | None


class Head(NamedTuple):
    """What one file says before its features are read; ``dtype`` of numbers float16 or float32."""

    path: Path
    rows: int
    dim: int
    dtype: np.dtype[Any]
    encoder: str | None
    patch_px: int | None
    mpp: float | None
    kept: dict[str, Any]


def head_of(found: Found) -> Head:
    """The head of one file."""
    part, figures = found.part, found.figures
    origin = part.origin
    kept = figures.kept
    sizes = (figures.patch_px, figures.mpp)
    return Head(origin.path, len(part), part.dim, part.dtype, origin.encoder, *sizes, kept)


def fit_of_archive(snapshot: Snapshot) -> Fit:
    """What an archive that is there takes."""
    settings = snapshot.settings
    return Fit(
        archive=snapshot.path,
        dim=settings.feature_dim,
        feature_dtype=settings.feature_dtype,
        encoder=noted_encoder(snapshot.bundle().description),
        patch_px=settings.patch_px,
        mpp=settings.mpp,
    )


def fit_of_files(archive: Path, heads: Sequence[Head], asked: Asked) -> Fit:
    """What a new archive is to take: what most of the files agree on, and what was asked for.

    Raises UsageError where neither says how large patches are.
    """
    dim = _most([head.dim for head in heads])
    heads = [head for head in heads if head.dim == dim]
    encoder = _most([head.encoder for head in heads])
    fitting = [head for head in heads if head.encoder in {None, encoder}]
    patch_px = asked.patch_px or _most([head.patch_px for head in fitting])
    if patch_px is None:
        message = f"{heads[0].path} does not say how large its patches are: give --patch-px PX."
        raise UsageError(message)
    dtypes = {head.dtype for head in fitting}
    return Fit(
        archive=archive,
        dim=int(dim or 0),
        feature_dtype=asked.feature_dtype or str(np.result_type(*dtypes)),
        encoder=encoder,
        patch_px=patch_px,
        mpp=asked.mpp or _most([head.mpp for head in fitting]),
    )


def common_attributes(heads: Iterable[Head], fit: Fit) -> dict[str, Any]:
    """The attributes that are the same in every file that fits."""
    kept = [head.kept for head in heads if head.dim == fit.dim]
    first = kept[0] if kept else {}
    return {
        name: value
        for name, value in first.items()
        if name not in OF_A_SLIDE and all(other.get(name) == value for other in kept)
    }


def misfit(head: Head, fit: Fit, asked: Asked) -> str | None:
    """Why a file's features cannot go into the archive, as a sentence; None where they can."""
    where = f"{head.path} cannot go into {fit.archive}"
    if head.dim != fit.dim:
        made = (f" made by {name}" if name else "" for name in (head.encoder, fit.encoder))
        return (
            f"{where}: its features are of width {head.dim}{next(made)}, the archive's of width "
            f"{fit.dim}{next(made)}; import them into another archive."
        )
    is_other = None not in {head.encoder, fit.encoder} and head.encoder != fit.encoder
    if is_other and not asked.encoder:
        return (
            f"{where}: its features were made by {head.encoder}, the archive's by {fit.encoder}; "
            "import them into another archive."
        )
    if asked.feature_dtype is None and not np.can_cast(head.dtype, fit.feature_dtype):
        return (
            f"{where}: its features are {head.dtype}, the archive's {fit.feature_dtype}; say "
            f"--feature-dtype {fit.feature_dtype} to round them."
        )
    if asked.patch_px is None and head.patch_px not in {None, fit.patch_px}:
        return (
            f"{where}: its patches are of {head.patch_px} px, the archive's of {fit.patch_px} px; "
            f"import them into another archive, or say --patch-px {fit.patch_px} if it is wrong."
        )
    if asked.mpp is None and head.mpp and fit.mpp and abs(head.mpp / fit.mpp - 1) > _NEAR:
        return (
            f"{where}: its patches are at {head.mpp:g} µm/px, the archive's at {fit.mpp:g}; import "
            f"them into another archive, or say --mpp {fit.mpp:g} if it is wrong."
        )
    return None


def _most(values: Sequence[Value | None]) -> Value | None:
    """The most frequent value that is not None; of equally frequent ones the first."""
    counts = Counter(value for value in values if value is not None)
    return max(counts, key=lambda value: counts[value], default=None)
