"""Features in HDF5 files, one per slide, as TRIDENT, CLAM and STAMP lay them out.

TRIDENT and CLAM write ``features`` (N, D) and ``coords`` (N, 2) in level-0 pixels, CLAM's older
versions ``features`` (1, N, D). STAMP writes ``feats`` (N, D) float16 and ``coords`` (N, 2)
float32 in µm, and says so on the file: ``unit`` (``um``; ``px`` of multiplex images), or
``tile_size_um`` alone. Its first version said nothing, and the unit is not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from patchknn.datasets.entries import TILESET_SUFFIXES, files_below
from patchknn.datasets.patches import Problem
from patchknn.datasets.stored import FeaturePart, Features, Origin
from patchknn.errors import InputError, PatchknnError

_NAMES = ("features", "feats")
# Files that patchknn wrote, which say their source's name themselves: tile sets and exports.
_OWN = ("patchknn_format", "patchknn_export")
_BLOCK_BYTES = 64 << 20
_FAILURES = (OSError, KeyError, ValueError, TypeError, RuntimeError)


def feature_parts(path: Path) -> Iterator[FeaturePart | Problem]:
    """The features below a folder, in the order of names, or those of one file; none read yet.

    A source is called as its file, relative to the folder and without suffix; a file of patchknn's
    own says its name itself.
    """
    if path.is_dir():
        files = [p for p in files_below(path) if p.suffix.lower() in TILESET_SUFFIXES]
        if not files:
            text = f"{path} holds no HDF5 file ({', '.join(TILESET_SUFFIXES)}) of features."
            yield Problem(str(path), text)
    else:
        files = [path]
    for file in files:
        relative = file.relative_to(path) if path.is_dir() else Path(file.name)
        try:
            yield open_feature_file(file, relative.as_posix())
        except PatchknnError as error:
            yield Problem(str(file), str(error))


def open_feature_file(path: Path, relative: str) -> FeaturePart:
    """Everything of one file but its features; ``relative`` is its path below what was given.

    Raises InputError where it is no HDF5 file, holds no features of patches, or contradicts
    itself.
    """
    import h5py

    if not path.is_file():
        message = f"{path} does not exist."
        raise InputError(message)
    try:
        with h5py.File(path, "r") as file:
            return _part(path, relative, file)
    except _FAILURES as error:
        message = f"{path} cannot be read as HDF5: {str(error).rstrip('.')}."
        raise InputError(message) from None


def _part(path: Path, relative: str, file: Any) -> FeaturePart:
    key = next((name for name in _NAMES if name in file), None)
    if key is None:
        held = ", ".join(sorted(file)) or "nothing"
        message = (
            f"{path} holds no dataset 'features' (TRIDENT, CLAM) or 'feats' (STAMP), but {held}: "
            "give files of patch features."
        )
        raise InputError(message)
    if "codes" in file and "source" in file:
        message = f"{path} is a shard of an archive; give the archive itself."
        raise InputError(message)
    dataset = file[key]
    n, dim = _shape(path, key, dataset, str(file.attrs.get("feat_type", "tile")))
    attributes = _attributes(file, dataset)
    stem = relative.rsplit(".", 1)[0]
    own_name = str(attributes.get("name") or stem)
    name = own_name if any(mark in attributes for mark in _OWN) else stem
    patient = attributes.get("patient")
    encoder = attributes.get("extractor") or attributes.get("encoder")
    return FeaturePart(
        origin=Origin(
            path=path,
            kind="hdf5",
            rows=n,
            unit=_unit(key, attributes),
            encoder=None if encoder is None else str(encoder),
            attributes=attributes,
        ),
        dim=dim,
        dtype=np.dtype(np.float16 if dataset.dtype == np.float16 else np.float32),
        sources=(name,) * n,
        coords=_coords(path, file, n),
        labels=_labels(path, file, n),
        patients=(None if patient is None else str(patient),) * n,
        splits=(None,) * n,
        blocks=lambda: _blocks(path, key, n, dim),
        aliases=tuple(dict.fromkeys([name, stem, relative, path.name, path.stem, own_name])),
    )


def _shape(path: Path, key: str, dataset: Any, kind: str) -> tuple[int, int]:
    shape = tuple(dataset.shape)
    if 0 in shape:
        return 0, 0  # a slide without tissue
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or kind not in {"tile", "patch"}:
        whole = "" if kind == "tile" else f" of a {kind}"
        message = (
            f"{path}: {key} has the shape {tuple(dataset.shape)}{whole}, not (N, D): give features "
            "of patches, not of whole slides."
        )
        raise InputError(message)
    if dataset.dtype.kind != "f":
        message = f"{path}: {key} is of type {dataset.dtype}; features are floating-point numbers."
        raise InputError(message)
    return shape[0], shape[1]


def _coords(path: Path, file: Any, n: int) -> npt.NDArray[np.float64]:
    if "coords" not in file:
        return np.full((n, 2), -1.0)
    values = np.asarray(file["coords"][()], np.float64)
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if n == 0:
        return np.empty((0, 2))
    if values.shape != (n, 2):
        message = (
            f"{path}: coords has the shape {values.shape} for {n} features: they must be those of "
            "the same patches."
        )
        raise InputError(message)
    return values


def _labels(path: Path, file: Any, n: int) -> tuple[str | None, ...]:
    """The ``label`` of each patch, as in patchknn's tile sets; an empty one is none."""
    if "label" not in file:
        return (None,) * n
    dataset = file["label"]
    if dataset.shape != (n,):
        message = f"{path}: label has the shape {dataset.shape} for {n} features."
        raise InputError(message)
    if dataset.dtype.kind not in "OS":
        message = f"{path}: label is of type {dataset.dtype}; write the names of classes as text."
        raise InputError(message)
    texts = dataset.asstr()[()] if n else ()
    # One object per class, not one per row.
    known: dict[str, str] = {}
    return tuple(known.setdefault(text, text) if text else None for text in texts)


def _unit(key: str, attributes: dict[str, Any]) -> Literal["px", "um"] | None:
    said = attributes.get("unit")
    if said == "um" or (said is None and "tile_size_um" in attributes):
        return "um"
    return "px" if said == "px" or (said is None and key == "features") else None


def _attributes(file: Any, dataset: Any) -> dict[str, Any]:
    holders = [file, dataset, *([file["coords"]] if "coords" in file else [])]
    return {name: _plain(value) for held in holders for name, value in held.attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _blocks(path: Path, key: str, n: int, dim: int) -> Iterator[Features]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            dataset = file[key]
            step = max(1, _BLOCK_BYTES // (dim * dataset.dtype.itemsize))
            for start in range(0, n, step):
                rows = slice(start, min(start + step, n))
                yield dataset[0, rows] if dataset.ndim == 3 else dataset[rows]
    except _FAILURES as error:
        message = f"{path} is damaged: {str(error).rstrip('.')}."
        raise InputError(message) from None
