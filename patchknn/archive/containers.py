"""Zarr and HDF5 files whose arrays are plain bytes at known places."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from patchknn.archive.streaming import Column
from patchknn.errors import ConflictError
from patchknn.files import ErrorKeepingFile

# Name of an array → its file within the container ("" where that is one file), and its offset.
Places = dict[str, tuple[str, int]]
_ALIGNMENT = 4096


def create_zarr(path: Path, arrays: Mapping[str, Column], attributes: Mapping[str, Any]) -> Places:
    """Make a Zarr group at ``path``: each array in one plain chunk that is not yet there.

    As the Zarr v3 core specification has it. The library itself needs longer for a group of a
    dozen arrays than their rows take, and writes in the background, where an error is noticed
    before all writes have ended.
    """
    path.mkdir()
    _write_json(path, {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})
    places: Places = {}
    for name, column in arrays.items():
        bytes_codec: dict[str, Any] = {"name": "bytes"}
        if column.dtype.itemsize > 1:
            bytes_codec["configuration"] = {"endian": "little"}
        chunk = Path(name, "c", *("0" for _ in column.shape))
        (path / chunk).parent.mkdir(parents=True)
        _write_json(
            path / name,
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": column.shape,
                "data_type": column.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": column.shape}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": column.dtype.type(0).item(),
                "codecs": [bytes_codec],
                "attributes": {},
                "storage_transformers": [],
            },
        )
        places[name] = (chunk.as_posix(), 0)
    return places


def _write_json(folder: Path, node: Mapping[str, Any]) -> None:
    (folder / "zarr.json").write_text(json.dumps(node, indent=2) + "\n")


def create_hdf5(path: Path, arrays: Mapping[str, Column], attributes: Mapping[str, Any]) -> Places:
    """Make an HDF5 file at ``path``: each array contiguous, from a page boundary, not yet there.

    Raises ConflictError where HDF5 has no place for one.
    """
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    places: Places = {}
    with (
        ErrorKeepingFile(path) as raw,
        h5py.File(raw, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file,
    ):
        for key, value in attributes.items():
            file.attrs[key] = value
        for name, column in arrays.items():
            array = file.create_dataset(name, column.shape, column.dtype, dcpl=layout.copy())
            offset = array.id.get_offset()
            if offset is None:
                message = (
                    f"{path} would not hold {name} as plain bytes: this version of h5py writes "
                    "otherwise; install another, or use --format zarr."
                )
                raise ConflictError(message)
            places[name] = ("", int(offset))
    return places


CREATORS: dict[str, Callable[[Path, Mapping[str, Column], Mapping[str, Any]], Places]] = {
    "zarr": create_zarr,
    "hdf5": create_hdf5,
}
