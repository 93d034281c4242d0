"""Rows that were found, in words: many at a time, so that a batch costs little per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import patch_id
from patchknn.search.answers import Neighbour
from patchknn.search.rows import RowNumbers, RowReader


def describe(
    reader: RowReader,
    rows: RowNumbers,
    distances: npt.NDArray[np.float64],
    codes: npt.NDArray[np.uint8],
) -> list[Neighbour]:
    """Rows (m,) of the snapshot, their L2 ``distances`` (m,), and the codes (m, K/8) of the queries
    that found them, as neighbours in the order given.
    """
    classes = reader.snapshot.classes
    result: list[Any] = [None] * len(rows)
    for shard, positions, local in reader.by_shard(rows):
        source = shard.source_at(local)
        hamming = np.bitwise_count(shard.codes[local] ^ codes[positions]).sum(axis=1)
        columns = zip(
            positions.tolist(),
            shard.source_names.take(source),
            shard.patients.take(source),
            shard.labels_at(local).tolist(),
            shard.coords[local].tolist(),
            hamming.tolist(),
            rows[positions].tolist(),
            distances[positions].tolist(),
            strict=True,
        )
        for position, name, patient, label, (x, y), bits, row, distance in columns:
            result[position] = Neighbour(
                row=row,
                id=patch_id(name, x, y),
                label=None if label < 0 else classes[label],
                hamming=bits,
                l2=distance,
                source=name,
                x=x,
                y=y,
                patient=patient,
            )
    return result


def hamming_to(
    reader: RowReader, rows: RowNumbers, codes: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """Hamming distances (m,) of the stored codes of rows (m,) to ``codes`` (m, K/8)."""
    bits = np.zeros(len(rows), np.int64)
    for shard, positions, local in reader.by_shard(rows):
        bits[positions] = np.bitwise_count(shard.codes[local] ^ codes[positions]).sum(axis=1)
    return bits


def by_query(neighbours: Sequence[Neighbour], counts: Sequence[int]) -> list[tuple[Neighbour, ...]]:
    """Split neighbours, query after query, by how many each query has."""
    ends = np.cumsum(counts).tolist()
    starts = [0, *ends[:-1]]
    return [tuple(neighbours[start:stop]) for start, stop in zip(starts, ends, strict=True)]
