"""Zarr and HDF5 files whose arrays are plain bytes at known places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.files import ErrorKeepingFile

# Name of an array → its file within the container ("" where that is one file), and its offset.
Places = dict[str, tuple[str, int]]
_ALIGNMENT = 4096


def write_zarr(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, Any]
) -> Places:
    """Write a Zarr v3 group at ``path``: each array uncompressed and in one chunk."""
    import zarr

    group = zarr.create_group(path, zarr_format=3, attributes=dict(attributes))
    places: Places = {}
    for name, values in arrays.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            compressors=None,
            filters=None,
            # An all-zero chunk left out would leave no bytes to map.
            config={"write_empty_chunks": True},
        )
        array[...] = values
        places[name] = ("/".join([name, "c", *("0" for _ in values.shape)]), 0)
    return places


def write_hdf5(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, Any]
) -> Places:
    """Write an HDF5 file at ``path``: each array contiguous, its first byte at a page boundary."""
    import h5py

    with (
        ErrorKeepingFile(path) as raw,
        h5py.File(raw, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file,
    ):
        for key, value in attributes.items():
            file.attrs[key] = value
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        return {name: ("", int(file[name].id.get_offset())) for name in arrays}


WRITERS: dict[str, Callable[[Path, Mapping[str, npt.NDArray[Any]], Mapping[str, Any]], Places]] = {
    "zarr": write_zarr,
    "hdf5": write_hdf5,
}


def holds_plain_bytes(file: Path, offset: int, values: npt.NDArray[Any]) -> bool:
    """Whether the first and last page of an array lie in the file as they lie in memory."""
    data = values.reshape(-1).view(np.uint8)
    with file.open("rb") as stream:
        for start in {0, max(len(data) - _ALIGNMENT, 0)}:
            stream.seek(offset + start)
            expected = data[start : start + _ALIGNMENT].tobytes()
            if stream.read(len(expected)) != expected:
                return False
    return True
