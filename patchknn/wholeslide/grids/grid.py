"""The grid file: a slide as (D, H, W) vectors of its patches, zero where there is no tissue.

Of Tellez 2020 ("neural image compression"): each patch of a slide is replaced by its vector, at
its place, so that a slide becomes small enough for one network to see it whole. As HDF5 or Zarr:
``features`` (A, D, H, W) float16, ``mask`` (H, W) bool, and attributes; both arrays are plain
bytes, mapped in place. Entry g of A = 8 is what the encoder makes of each patch after the g-th of
the eight flips and rotations, which was applied before encoding and not to the vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchknn.archive.mapping import map_array
from patchknn.errors import InputError
from patchknn.files import read_json
from patchknn.wholeslide.grids.grid_info import ENTRIES, GridInfo, from_attributes
from patchknn.wholeslide.grids.grid_writer import SUFFIXES, GridWriter, copy_places

__all__ = ["Grid", "GridInfo", "GridWriter", "list_grids", "open_grid", "write_grid"]


@dataclass(frozen=True)
class Grid:
    """One slide: ``features`` (A, D, H, W) float16, read from disk as they are used, and ``mask``.

    ``mask`` (H, W) bool says which places are tissue. Neither can be written to.
    """

    info: GridInfo
    features: NDArray[np.float16]
    mask: NDArray[np.bool_]

    @property
    def entries(self) -> int:
        """A: how many of the eight orientations there are, 1 or 8."""
        return len(self.features)

    def turned(self, orientation: int) -> NDArray[np.float16]:
        """What the whole slide would give after one of the eight flips and rotations.

        (D, H, W), or (D, W, H) of a quarter turn; a copy. The order is that of
        ``encoder.orientations``: turned by 90° ``orientation // 2`` times, and mirrored where it
        is odd. Raises ValueError where the grid was not compressed with it.
        """
        return turn(self.features[self._checked(orientation)], orientation)

    def turned_mask(self, orientation: int) -> NDArray[np.bool_]:
        """The mask (H, W) turned likewise; a copy."""
        return turn(self.mask, orientation)

    def vectors(self, orientation: int = 0) -> NDArray[np.float16]:
        """Vectors (n, D) of the places that are tissue, row by row; a copy."""
        entry = self.features[self._checked(orientation)]
        return np.ascontiguousarray(entry[:, self.mask].T)

    def places(self) -> NDArray[np.int64]:
        """The places (n, 2) that are tissue, rows and columns, row by row."""
        return np.argwhere(self.mask)

    def _checked(self, orientation: int) -> int:
        if not 0 <= orientation < self.entries:
            message = (
                f"the grid of {self.info.name} has {self.entries} of the eight orientations, and "
                f"{orientation} is none of them"
            )
            raise ValueError(message)
        return orientation


def turn(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array (…, H, W) after the flip and rotation of that number, 0 to 7; a copy."""
    turned = np.rot90(values, orientation // 2, (-2, -1))
    return np.array(turned[..., ::-1] if orientation % 2 else turned, order="C")


def open_grid(path: Path) -> Grid:
    """Open a grid file; its vectors are read when they are used.

    Raises InputError for a file that is missing, damaged, newer, or something else.
    """
    try:
        return _of_zarr(path) if path.suffix == ".zarr" else _of_hdf5(path)
    except FileNotFoundError:
        message = f"{path} does not exist."
        raise InputError(message) from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        message = f"{path} is not a grid of patchknn, or is damaged: {str(reason).rstrip('.')}."
        raise InputError(message) from None


def write_grid(
    path: Path, info: GridInfo, features: NDArray[np.floating[Any]], mask: NDArray[np.bool_]
) -> None:
    """Write a grid that is in memory: ``features`` (A, D, H, W) and ``mask`` (H, W).

    What they hold off the mask is written as zeros. Raises ValueError where the shapes do not fit,
    or a feature is not finite in float16.
    """
    if features.ndim != 4 or mask.shape != features.shape[2:] or len(features) not in ENTRIES:
        message = f"features {features.shape} and mask {mask.shape} do not make a grid"
        raise ValueError(message)
    entries, dim, height, width = features.shape
    with GridWriter(path, info, (entries, dim, height, width)) as writer:
        copy_places(features, mask, writer)


def list_grids(folder: Path) -> list[Path]:
    """The grid files below a folder, sorted; or the one that ``folder`` itself is.

    They are known by their names, ``.h5`` and ``.zarr``, and not opened. Raises InputError where
    there is none.
    """
    if folder.suffix in SUFFIXES and (folder.suffix == ".zarr" or folder.is_file()):
        return [folder]
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        kept = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in kept if name.endswith(".zarr")]
        folders[:] = [name for name in kept if not name.endswith(".zarr")]
        found += [Path(root, n) for n in names if n.endswith(".h5") and not n.startswith(".")]
    if not found:
        message = f"{folder} holds no grid; 'patchknn slide compress' makes them."
        raise InputError(message)
    return sorted(found)


def _of_hdf5(path: Path) -> Grid:
    import h5py

    with h5py.File(path, "r") as file:
        info = from_attributes(dict(file.attrs))
        arrays = {name: (path, file[name].id.get_offset()) for name in ("features", "mask")}
        shapes = {name: (file[name].dtype, file[name].shape) for name in arrays}
    return _mapped(info, shapes, arrays)


def _of_zarr(path: Path) -> Grid:
    info = from_attributes(_node(path)["attributes"])
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {}
    arrays: dict[str, tuple[Path, int | None]] = {}
    for name in ("features", "mask"):
        node = _node(path / name)
        shape = tuple(map(int, node["shape"]))
        chunks = tuple(node["chunk_grid"]["configuration"]["chunk_shape"])
        is_plain = chunks == shape and [codec["name"] for codec in node["codecs"]] == ["bytes"]
        shapes[name] = (np.dtype(node["data_type"]), shape)
        file = path.joinpath(name, "c", *("0" for _ in shape))
        arrays[name] = (file, 0 if is_plain else None)
    return _mapped(info, shapes, arrays)


def _node(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise FileNotFoundError
    return read_json(folder / "zarr.json")


def _mapped(
    info: GridInfo,
    shapes: Mapping[str, tuple[Any, tuple[int, ...]]],
    arrays: Mapping[str, tuple[Path, int | None]],
) -> Grid:
    (dtype, shape), (mask_dtype, mask_shape) = shapes["features"], shapes["mask"]
    fits = dtype == np.float16 and mask_dtype == np.bool_ and len(shape) == 4
    if not fits or shape[0] not in ENTRIES or mask_shape != shape[2:]:
        message = f"features {dtype} {shape} and mask {mask_dtype} {mask_shape} make no grid"
        raise ValueError(message)
    mapped = {}
    for name, (file, offset) in arrays.items():
        if offset is None:
            message = f"its {name} are not plain bytes"
            raise ValueError(message)
        mapped[name] = map_array(file, np.dtype(shapes[name][0]).str, shapes[name][1], offset)
    return Grid(info, mapped["features"], mapped["mask"])
