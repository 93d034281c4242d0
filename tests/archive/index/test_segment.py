"""A segment is what brute force over its shards gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.index.update import update_index
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.hamming.packing import sort_order, unpack_bits, words


def _brute(segment):
    """Codes of the segment's rows, in its order of shards."""
    return np.concatenate([np.array(shard.codes) for shard in segment.shards])


@pytest.mark.parametrize("sizes", [(3000,), (1500, 2000, 1000), (1,), (1, 1), (40,) * 12])
@pytest.mark.parametrize("bits", [8, 16, 48, 64, 72, 128, 1024])
def test_codes_bounds_and_rows(new_archive, bits, sizes):
    path = new_archive(*sizes, bits=bits)
    update_index(path)
    snapshot = open_archive(path)
    (segment,) = snapshot.cover.segments
    assert not snapshot.cover.bare
    assert not snapshot.cover.problems
    assert [shard.uuid for shard in segment.shards] == [shard.uuid for shard in snapshot.shards]
    codes = _brute(segment)
    order = sort_order(codes)
    distinct, starts = np.unique(codes[order], axis=0, return_index=True)
    arrays = segment.code_arrays
    assert arrays.bits == bits
    assert np.array_equal(arrays.codes, words(distinct))
    assert arrays.bounds.tolist() == [*starts.tolist(), len(codes)]
    positions = np.arange(segment.n_rows)
    assert np.array_equal(segment.segment_rows(positions), order)
    assert (segment.rows is None) == (len(sizes) == 1)
    assert np.array_equal(segment.snapshot_rows(positions), positions)


def test_parts_hold_every_code_once_by_its_bits(indexed):
    (segment,) = open_archive(indexed).cover.segments
    arrays = segment.code_arrays
    assert len(arrays.parts) >= 2
    bits = unpack_bits(arrays.codes.astype(">u8").view(np.uint8).reshape(len(arrays.codes), -1))
    for part in arrays.parts:
        chosen = bits[:, part.first_bit : part.first_bit + part.width]
        values = chosen @ (1 << np.arange(part.width)[::-1])
        order = np.argsort(values, kind="stable")
        if part.order is not None:
            assert np.array_equal(part.order, order)
        assert np.array_equal(
            part.bounds, np.searchsorted(values[order], np.arange(2**part.width + 1))
        )


def test_balls_and_neighbours_through_it_are_those_of_the_shards(indexed):
    (segment,) = open_archive(indexed).cover.segments
    codes = _brute(segment)
    features = np.concatenate([np.array(shard.features) for shard in segment.shards])
    for row in range(0, len(codes), 500):
        distances = (unpack_bits(codes) ^ unpack_bits(codes[row : row + 1])).sum(axis=1)
        hits = segment.table.ball(words(codes[row : row + 1]), 6)
        starts = segment.code_arrays.bounds[hits.codes].astype(np.int64)
        stops = segment.code_arrays.bounds[hits.codes + 1].astype(np.int64)
        ball = np.flatnonzero(distances <= 6)
        found = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
        assert np.array_equal(np.sort(segment.segment_rows(found)), ball)
        positions, l2, *_ = segment.features.nearest(features[row], starts, stops, 5)
        difference = features[ball].astype(np.float64) - features[row].astype(np.float64)
        wanted = np.sort(np.sqrt((difference**2).sum(axis=1)))[:5]
        assert np.allclose(np.sort(l2)[:5], wanted)
        assert row in segment.segment_rows(positions)


def test_every_row_is_found_by_its_id(indexed, ids_of):
    snapshot = open_archive(indexed)
    ids = ids_of(snapshot)
    order = np.random.default_rng(0).permutation(len(ids))
    found = snapshot.locate_many([ids[row] for row in order])
    assert np.array_equal(found, order)
    unknown = ["", "@", "s0.svs", "s0.svs@1_1", "s9.svs@0_0", "s0/0.png@0_0", "s0/0.pn", "s0@-1_-1"]
    assert snapshot.locate_many([*unknown, ids[7]]).tolist() == [-1] * len(unknown) + [7]


def test_a_patch_and_a_plain_image_of_one_name(empty, bundle, make_rows):
    for images, slides in ((["s.svs@0_0", "t@224_448"], ["t"]), (["x@1_2"], ["s.svs"])):
        with ArchiveWriter(empty) as writer:
            writer.add(make_rows(bundle, images=images, slides=slides, seed=len(slides[0])))
            writer.publish()
    before = open_archive(empty)
    names = ["s.svs@0_0", "s.svs@0_448", "t@224_896", "t@224_448", "x@1_2"]
    expected = before.locate_many(names)
    assert (expected >= 0).all()
    update_index(empty)
    assert open_archive(empty).cover.segments
    assert np.array_equal(open_archive(empty).locate_many(names), expected)


def test_sources_are_found_by_name_content_and_patient(new_archive, grow, bundle):
    """Half of the shards have an index, the others none."""
    path = new_archive(300, 200)
    update_index(path)
    grow(path, open_archive(path).bundle(), 150, name="late", seed=9)
    snapshot = open_archive(path)
    assert len(snapshot.cover.segments) == len(snapshot.cover.bare) == 1
    names, quickhashes, patients = [], [], []
    for shard in snapshot.shards:
        for number in range(shard.n_sources):
            record = shard.source_record(number)
            names.append((record.name, shard.uuid, number))
            quickhashes.append((record.quickhash, shard.uuid, number))
            patients.append((record.patient, shard.uuid, number))
    for ask, known in (
        (snapshot.sources_named, names),
        (snapshot.sources_by_quickhash, quickhashes),
        (snapshot.sources_of_patients, patients),
    ):
        wanted = sorted({key for key, _, _ in known if key is not None})
        found = [(wanted[which], shard.uuid, number) for which, shard, number in ask(wanted)]
        assert sorted(found) == sorted(entry for entry in known if entry[0] is not None)
        assert ask([]) == []
    assert snapshot.sources_named(["none", ""]) == []
    assert snapshot.sources_of_patients(["P", "p s0"]) == []
    assert snapshot.sources_by_quickhash([bytes(16)]) == []
    assert snapshot.find_source("ü late.svs").patient == "everyone's"


def _descriptors():
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_opening_reads_and_keeps_next_to_nothing(indexed):
    """The arrays stay where they are: no files stay open, nothing is written."""
    before = {file: file.stat().st_mtime_ns for file in indexed.rglob("*")}
    descriptors = _descriptors()
    snapshot = open_archive(indexed)
    (segment,) = snapshot.cover.segments
    assert segment.features is segment.features
    assert not segment.code_arrays.codes.flags.writeable
    assert _descriptors() == descriptors
    assert {file: file.stat().st_mtime_ns for file in indexed.rglob("*")} == before
