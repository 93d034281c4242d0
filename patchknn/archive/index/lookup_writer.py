"""Write the hash tables of a segment: patch ids, and sources by name, quickhash and patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.hash_table import mixed
from patchknn.archive.index.hash_table_writer import Chunks, write_hash_table
from patchknn.archive.index.layout import ArrayRecord
from patchknn.archive.index.lookups import ID, NAME, PATIENT, QUICKHASH
from patchknn.archive.shard import Shard
from patchknn.archive.strings import name_key

_CHUNK = 1 << 20


def write_lookups(folder: Path, shards: Sequence[Shard]) -> dict[str, ArrayRecord]:
    """Write the tables over these shards; DamageError where one of them is out of range."""
    rows, sources = sum(map(len, shards)), sum(shard.n_sources for shard in shards)
    tables: tuple[tuple[str, Chunks, int], ...] = (
        (ID, _id_chunks(shards), rows),
        (NAME, _name_chunks(shards), sources),
        (QUICKHASH, _quickhash_chunks(shards), sources),
        (PATIENT, _patient_chunks(shards), sources),
    )
    arrays: dict[str, ArrayRecord] = {}
    for name, chunks, count in tables:
        arrays |= write_hash_table(folder, name, chunks, count, checks=name != ID)
    return arrays


def _id_chunks(shards: Sequence[Shard]) -> Chunks:
    first = 0
    for shard in shards:
        for start in range(0, len(shard), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(shard)))
            keys = shard.source_keys[shard.source_at(rows)]
            x, y = shard.coords[start : start + _CHUNK].T
            yield mixed(keys, x, y), (first + rows).astype(np.uint32)
        first += len(shard)


def _name_chunks(shards: Sequence[Shard]) -> Chunks:
    for first, shard in _with_first_source(shards):
        yield mixed(shard.source_keys), _numbers(first, shard.n_sources)


def _quickhash_chunks(shards: Sequence[Shard]) -> Chunks:
    for first, shard in _with_first_source(shards):
        columns = np.ascontiguousarray(shard.source_quickhashes).view("<u8").T
        yield mixed(*columns), _numbers(first, shard.n_sources)


def _patient_chunks(shards: Sequence[Shard]) -> Chunks:
    for first, shard in _with_first_source(shards):
        patients = shard.patients
        if patients.all_unknown():
            continue
        keys: dict[str, int] = {}
        known, hashes = [], []
        for number, patient in enumerate(patients):
            if patient is not None:
                if patient not in keys:
                    keys[patient] = name_key(patient)
                known.append(first + number)
                hashes.append(keys[patient])
        yield mixed(np.array(hashes, np.uint64)), np.array(known, np.uint32)


def _with_first_source(shards: Sequence[Shard]) -> Iterator[tuple[int, Shard]]:
    first = 0
    for shard in shards:
        yield first, shard
        first += shard.n_sources


def _numbers(first: int, count: int) -> npt.NDArray[Any]:
    return np.arange(first, first + count).astype(np.uint32)
