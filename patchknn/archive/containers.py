"""Zarr and HDF5 files whose arrays are plain bytes at known places."""

from __future__ import annotations

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
    """Make a Zarr v3 group at ``path``: each array in one plain chunk that is not yet there.

    zarr says what its files hold, and here they are written: its own stores write in the
    background, where what goes wrong is noticed before all of them have ended.
    """
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.group import GroupMetadata
    from zarr.core.metadata import ArrayV3Metadata

    metadata = {
        name: ArrayV3Metadata.from_dict(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": column.shape,
                "data_type": column.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": column.shape}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                "fill_value": 0,
                "attributes": {},
            }
        )
        for name, column in arrays.items()
    }
    nodes: dict[Path, GroupMetadata | ArrayV3Metadata] = {
        path: GroupMetadata(attributes=dict(attributes)),
        **{path / name: node for name, node in metadata.items()},
    }
    for folder, node in nodes.items():
        folder.mkdir()
        for file, content in node.to_buffer_dict(default_buffer_prototype()).items():
            (folder / file).write_bytes(content.to_bytes())
    places: Places = {}
    for name, column in arrays.items():
        chunk = metadata[name].encode_chunk_key((0,) * len(column.shape))
        places[name] = (f"{name}/{chunk}", 0)
        (path / name / chunk).parent.mkdir(parents=True, exist_ok=True)
    return places


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
