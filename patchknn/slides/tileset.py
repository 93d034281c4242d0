"""The tile-set file: which patches of a slide to use, as HDF5 that TRIDENT and CLAM open too.

``coords`` (N, 2) int64 holds level-0 top-left corners, and carries every figure as an attribute,
where both peers look for them. CLAM reads ``patch_size`` pixels of ``patch_level`` and cannot
resample: where that level is finer than ``target_mpp``, ``custom_downsample`` (read by TRIDENT's
loader of such files) says by how much.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError
from patchknn.files import ErrorKeepingFile, replaced_atomically

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TileSet:
    """Tiles of one slide.

    ``coords`` (N, 2) int64: level-0 pixels; ``tissue`` (N,) float32: share of tissue in each
    tile; ``labels``: a class or None per tile. ``patch_size`` and ``overlap`` count pixels at
    ``target_mpp``, ``patch_size_level0`` pixels of level 0 (rounded).
    """

    name: str
    slide: Path
    coords: NDArray[np.int64]
    patch_size: int
    patch_size_level0: int
    patch_level: int
    target_mpp: float
    level0_mpp: float
    level0_magnification: float
    target_magnification: float
    level0_width: int
    level0_height: int
    overlap: int
    reader: str
    reader_version: str
    tissue_method: str
    custom_downsample: float = 1.0
    tissue: NDArray[np.float32] | None = None
    labels: tuple[str | None, ...] | None = None
    patient: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.coords)


_PLAIN = (
    "patch_size", "patch_size_level0", "patch_level", "target_mpp", "level0_mpp",
    "level0_magnification", "target_magnification", "level0_width", "level0_height", "overlap",
    "name", "reader", "reader_version", "tissue_method", "custom_downsample",
)  # fmt: skip


def write_tileset(path: Path, tileset: TileSet) -> None:
    """Write a tile set, whole or not at all; folders above it are made."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replaced_atomically(path) as temporary,
        ErrorKeepingFile(temporary) as raw,
        h5py.File(raw, "w") as file,
    ):
        coords = file.create_dataset("coords", data=tileset.coords.reshape(-1, 2), dtype="<i8")
        for key in _PLAIN:
            coords.attrs[key] = getattr(tileset, key)
        coords.attrs["slide"] = str(tileset.slide)
        coords.attrs["settings"] = json.dumps(tileset.settings, sort_keys=True)
        coords.attrs["notes"] = json.dumps(tileset.notes)
        if tileset.patient is not None:
            coords.attrs["patient"] = tileset.patient
        if tileset.tissue is not None:
            file.create_dataset("tissue", data=tileset.tissue, dtype="<f4")
        if tileset.labels is not None:
            texts = [label or "" for label in tileset.labels]
            file.create_dataset("label", data=texts, shape=(len(texts),), dtype=h5py.string_dtype())
        file.attrs["patchknn_format"] = FORMAT_VERSION


def read_tileset(path: Path) -> TileSet:
    """Read a tile set that patchknn wrote.

    Raises InputError for a file that is missing, damaged, newer, or something else.
    """
    import h5py

    if not path.is_file():
        message = f"{path} does not exist."
        raise InputError(message)
    try:
        with h5py.File(path, "r") as file:
            return _from_file(path, file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        message = f"{path} is not a tile set of patchknn, or is damaged: {reason}."
        raise InputError(message) from None


def _from_file(path: Path, file: Any) -> TileSet:
    version = int(file.attrs["patchknn_format"])
    if version > FORMAT_VERSION:
        message = f"{path} is a tile set of format {version}; update patchknn, which reads 1."
        raise InputError(message)
    attributes = dict(file["coords"].attrs)
    coords = np.asarray(file["coords"][:], dtype=np.int64)
    if coords.ndim != 2 or coords.shape[1] != 2:
        message = f"coords has the shape {coords.shape}, not (N, 2)"
        raise ValueError(message)
    tissue = np.asarray(file["tissue"][:], dtype=np.float32) if "tissue" in file else None
    labels = None
    if "label" in file:
        labels = tuple(text or None for text in file["label"].asstr()[:])
    for name, values in (("tissue", tissue), ("label", labels)):
        if values is not None and len(values) != len(coords):
            message = f"{name} holds {len(values)} values for {len(coords)} tiles"
            raise ValueError(message)
    return TileSet(
        name=str(attributes["name"]),
        slide=Path(attributes["slide"]),
        coords=coords,
        patch_size=int(attributes["patch_size"]),
        patch_size_level0=int(attributes["patch_size_level0"]),
        patch_level=int(attributes["patch_level"]),
        target_mpp=float(attributes["target_mpp"]),
        level0_mpp=float(attributes["level0_mpp"]),
        level0_magnification=float(attributes["level0_magnification"]),
        target_magnification=float(attributes["target_magnification"]),
        level0_width=int(attributes["level0_width"]),
        level0_height=int(attributes["level0_height"]),
        overlap=int(attributes["overlap"]),
        reader=str(attributes["reader"]),
        reader_version=str(attributes["reader_version"]),
        tissue_method=str(attributes["tissue_method"]),
        custom_downsample=float(attributes["custom_downsample"]),
        tissue=tissue,
        labels=labels,
        patient=attributes.get("patient"),
        settings=json.loads(attributes["settings"]),
        notes=tuple(json.loads(attributes["notes"])),
    )
