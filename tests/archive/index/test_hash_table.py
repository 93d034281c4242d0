"""Every entry is among the candidates of its hash, in memory or spread over files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchknn.archive.index.hash_table import HashTable, mixed, prefix_bits
from patchknn.archive.index.hash_table_writer import write_hash_table
from patchknn.archive.mapping import map_array


def _table(folder, chunks, count, *, checks=False, **options):
    records = write_hash_table(folder, "t", chunks, count, checks=checks, **options)
    assert not list(folder.glob(".spill*"))
    arrays = [
        map_array(folder / f"{name}.bin", records[name].dtype, records[name].shape)
        for name in ("t_bounds", "t_entries", *(["t_checks"] if checks else []))
    ]
    return HashTable(*arrays[:2], 1 << 32, *arrays[2:])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1) | st.just(5), max_size=30), max_size=5),
    st.sampled_from([4, 1000]),
    st.integers(0, 40),
    st.booleans(),
)
def test_candidates_hold_what_was_put_in(tmp_path_factory, parts, in_memory, more, checks):
    hashes = [np.array(part, np.uint64) for part in parts]
    entries, first = [], 0
    for part in hashes:
        entries.append(np.arange(first, first + len(part)).astype(np.uint32))
        first += len(part)
    chunks = zip(hashes, entries, strict=True)
    folder = tmp_path_factory.mktemp("table")
    table = _table(folder, chunks, first + more, checks=checks, in_memory=in_memory)
    asked = np.array([*(value for part in parts for value in part), 17], np.uint64)
    numbers, found = table.candidates(asked)
    pairs = set(zip(numbers.tolist(), found.tolist(), strict=True))
    assert {(number, number) for number in range(first)} <= pairs
    # A bucket holds the hashes with the same first bits and no others, and the last may be kept.
    shift = np.uint64(64 - prefix_bits(first))
    everything = np.concatenate([*hashes, asked[:0]])
    last = np.uint64(0xFFFFFFFF if checks else 0)
    assert pairs == {
        (number, entry)
        for number, hash_ in enumerate(asked)
        for entry in np.flatnonzero(everything >> shift == hash_ >> shift).tolist()
        if everything[entry] & last == hash_ & last
    }


def test_buckets_are_small_where_hashes_are_spread(tmp_path):
    keys = np.arange(100_000)
    chunks = [(mixed(keys, keys % 7), keys.astype(np.uint32))]
    table = _table(tmp_path, chunks, len(keys))
    numbers, _ = table.candidates(mixed(keys, keys % 7))
    assert len(numbers) < 3 * len(keys)
    assert len(np.unique(mixed(keys, keys[::-1]))) == len(keys)


def test_values_out_of_range_are_refused():
    bounds = np.array([0, 1, 2, 3, 4], np.uint32)
    entries = np.array([0, 1, 2, 9], np.uint32)
    hashes = np.arange(4, dtype=np.uint64) << np.uint64(62)
    with pytest.raises(ValueError, match="entry is out of range"):
        HashTable(bounds, entries, 9).candidates(hashes)
    for wrong in ([0, 1, 2, 3, 5], [0, 2, 1, 3, 4], [0, 1, 2**32 - 1, 3, 4]):
        with pytest.raises(ValueError, match="bounds are out of range"):
            HashTable(np.array(wrong, np.uint32), entries, 10).candidates(hashes)
