"""Labelled features that are stored already: one record, whatever files they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from patchknn.datasets.patches import Problem
from patchknn.errors import ConflictError, InputError, PatchknnError

Features = npt.NDArray[Any]
Texts = tuple[str | None, ...]


@dataclass(frozen=True)
class Origin:
    """Where ``rows`` rows come from.

    ``encoder`` is what made the features: an archive's encoder fingerprint, the ``extractor`` of
    an HDF5 file, None where nothing says. ``unit`` is that of the coordinates: ``px`` (level-0
    pixels), ``um`` (µm from the slide's top left) or None where nothing says. ``attributes`` are
    the file's own.
    """

    path: Path
    kind: Literal["hdf5", "archive", "npy"]
    rows: int
    unit: Literal["px", "um"] | None = None
    encoder: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FeaturePart:
    """The rows of one file or archive, with all that is small; features are read in ``blocks``.

    ``dim`` D and ``dtype`` (float16 or float32) are what they will be; ``sources``, ``labels``,
    ``patients`` and ``splits`` have one entry a row, ``coords`` is (n, 2) float64, −1 where there
    are none. ``aliases`` are other names of its source where it holds only one; ``paths`` are the
    files of sources where they are known.
    """

    origin: Origin
    dim: int
    dtype: np.dtype[Any]
    sources: tuple[str, ...]
    coords: npt.NDArray[np.float64]
    labels: Texts
    patients: Texts
    splits: Texts
    blocks: Callable[[], Iterator[Features]]
    aliases: tuple[str, ...] = ()
    paths: Mapping[str, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class StoredFeatures:
    """Features to train on, and what is known of each row.

    ``features`` (N, D) float16 where all inputs are, else float32, all finite, in memory;
    ``labels``, ``patients`` and ``splits`` a text or None per row; ``sources`` the slide's or
    image's name per row; ``coords`` (N, 2) float64 x and y in their origin's unit, −1 where
    there are none. Rows come in the order of ``origins``. ``problems`` are inputs left out.
    """

    features: Features
    labels: Texts
    sources: tuple[str, ...]
    coords: npt.NDArray[np.float64]
    patients: Texts
    splits: Texts
    origins: tuple[Origin, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Features per patch, D."""
        return int(self.features.shape[1])

    @property
    def encoder(self) -> str | None:
        """What made the features, where every origin says the same."""
        names = {origin.encoder for origin in self.origins}
        return names.pop() if len(names) == 1 else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels that there are, sorted."""
        return tuple(sorted({label for label in self.labels if label is not None}))


def put_together(inputs: Iterable[FeaturePart | Problem]) -> StoredFeatures:
    """One record of all parts, in their order; problems among them are passed on.

    Held in memory: the result, (N, D) in its dtype, allocated once and filled block by block
    (at most 64 MiB more), and per row four references to texts and two float64. A part whose
    features cannot be read or hold a NaN or an infinity becomes a Problem. Raises ConflictError
    where two parts have other dimensions, were made by other encoders, or hold a source of the
    same name; InputError where no row is left.
    """
    parts: list[FeaturePart] = []
    problems: list[Problem] = []
    for item in inputs:
        if isinstance(item, Problem):
            problems.append(item)
        elif len(item):
            parts.append(item)
    _check_fit(parts)
    dtype = np.result_type(*(part.dtype for part in parts)) if parts else np.dtype(np.float16)
    dim = parts[0].dim if parts else 0
    features = np.empty((sum(len(part) for part in parts), dim), dtype)
    kept, end = [], 0
    for part in parts:
        try:
            _fill(features[end : end + len(part)], part)
        except PatchknnError as error:
            problems.append(Problem(str(part.origin.path), str(error)))
            continue
        kept.append(part)
        end += len(part)
    if not kept:
        reason = f": {problems[0].error}" if problems else "."
        message = f"There are no stored features to read{reason}"
        raise InputError(message)
    return StoredFeatures(
        features=features[:end],
        labels=tuple(text for part in kept for text in part.labels),
        sources=tuple(name for part in kept for name in part.sources),
        coords=np.concatenate([part.coords for part in kept]),
        patients=tuple(text for part in kept for text in part.patients),
        splits=tuple(text for part in kept for text in part.splits),
        origins=tuple(part.origin for part in kept),
        problems=tuple(problems),
    )


def _fill(rows: Features, part: FeaturePart) -> None:
    end = 0
    for block in part.blocks():
        with np.errstate(over="ignore"):  # float64 beyond float32 is found as an infinity
            rows[end : end + len(block)] = block
        finite = np.isfinite(rows[end : end + len(block)]).all(axis=1)
        if not finite.all():
            row = end + int(np.argmin(finite))
            message = (
                f"{part.origin.path}: the features of row {row} hold a NaN or an infinity; make "
                "them again, in float32 or bfloat16."
            )
            raise InputError(message)
        end += len(block)


def _check_fit(parts: Sequence[FeaturePart]) -> None:
    encoders: dict[str, Origin] = {}
    owners: dict[str, FeaturePart] = {}
    for part in parts:
        origin = part.origin
        first = parts[0]
        if part.dim != first.dim:
            message = (
                f"{origin.path} holds features of dimension {part.dim} and {first.origin.path} of "
                f"{first.dim}: give features of one encoder."
            )
            raise ConflictError(message)
        if origin.encoder is not None:
            other = encoders.setdefault(origin.kind, origin)
            if other.encoder != origin.encoder:
                message = (
                    f"The features of {origin.path} were made by {origin.encoder} and those of "
                    f"{other.path} by {other.encoder}: give features of one encoder."
                )
                raise ConflictError(message)
        for name in dict.fromkeys(part.sources):
            owner = owners.setdefault(name, part)
            if owner is not part:
                message = (
                    f"{owner.origin.path} and {origin.path} both hold features of {name!r}: give "
                    "one of them."
                )
                raise ConflictError(message)
