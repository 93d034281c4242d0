"""Rows as the arrays of a shard, in the order that makes a hash bucket one contiguous run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.ordering import order_by
from patchknn.archive.rows import Rows, Source
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.streaming import Column
from patchknn.archive.strings import name_key, pack_blobs, pack_strings
from patchknn.hamming.packing import words

_Arrays = dict[str, npt.NDArray[Any]]


def shard_arrays(rows: Rows, settings: ArchiveSettings) -> dict[str, Column]:
    """Lay out rows (n ≥ 1) by name, as ``description.expected_arrays`` lists them.

    Rows are ordered by code, then source, y and x, so that the same rows make the same shard
    whatever order they came in; sources without rows are left out.
    """
    used = np.flatnonzero(np.bincount(rows.source))
    keys = np.array([name_key(rows.sources[number].name) for number in used.tolist()], np.uint64)
    by_key = np.argsort(keys, kind="stable")
    sources = [rows.sources[number] for number in used[by_key].tolist()]
    renumbered = np.zeros(len(rows.sources), np.int32)
    renumbered[used[by_key]] = np.arange(len(used), dtype=np.int32)
    source = renumbered[rows.source]

    columns = words(rows.codes).T
    order = order_by((*columns, source, rows.coords[:, 1], rows.coords[:, 0]))
    by_row: _Arrays = {
        "features": rows.features.astype(f"<{_dtype_code(settings)}", copy=False),
        "codes": rows.codes,
        "coords": rows.coords.astype("<i8", copy=False),
        "source": source.astype("<i4", copy=False),
        "label": rows.labels.astype("<i4", copy=False),
    }
    others: _Arrays = {
        "source_key": keys[by_key].astype("<u8", copy=False),
        **_source_table(sources),
    }
    if rows.thumbnails is not None:
        images = [rows.thumbnails[row] for row in order.tolist()]
        others["thumbnail_bytes"], others["thumbnail_offsets"] = pack_blobs(images)
    return {
        **{name: Column(values, order) for name, values in by_row.items()},
        **{name: Column(_little_endian(values)) for name, values in others.items()},
    }


def _little_endian(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _dtype_code(settings: ArchiveSettings) -> str:
    return {"float16": "f2", "float32": "f4"}[settings.feature_dtype]


def _source_table(sources: list[Source]) -> _Arrays:
    table: _Arrays = {
        "source_size": np.array([s.size for s in sources], "<i8"),
        "source_mtime_ns": np.array([s.mtime_ns for s in sources], "<i8"),
        "source_quickhash": np.frombuffer(b"".join(s.quickhash for s in sources), np.uint8).reshape(
            len(sources), 16
        ),
        "source_mpp": np.array([np.nan if s.mpp is None else s.mpp for s in sources], "<f8"),
    }
    columns: dict[str, list[Any]] = {
        "source_name": [s.name for s in sources],
        "source_path": [s.path for s in sources],
        "source_patient": [s.patient for s in sources],
    }
    if any(s.attributes for s in sources):
        columns["source_attributes"] = [s.attributes for s in sources]
    for name, texts in columns.items():
        table[f"{name}_bytes"], table[f"{name}_offsets"] = pack_strings(texts)
    return table
