"""Finding rows and sources in a snapshot."""

from __future__ import annotations

import pytest

from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter


def test_every_row_is_found_by_its_id(archive):
    snapshot = open_archive(archive)
    ids = [snapshot.row(row).id for row in range(snapshot.n_rows)]
    assert snapshot.locate_many(ids).tolist() == list(range(24))
    assert snapshot.locate_many(ids[::-1]).tolist() == list(range(24))[::-1]
    assert len(set(ids)) == 24


@pytest.mark.parametrize(
    "identity",
    [
        "",
        "@",
        "s1.svs",
        "s1.svs@1_1",
        "s1.svs@0",
        "b.png@0_0",
        "b.pn",
        "b.png\0",
        "s1.svs@-1_-1",
        "s1.svs@99999999999999999999999_0",
        "s1.svs@٣_٣",
    ],
)
def test_other_ids_are_not_found(archive, identity):
    assert open_archive(archive).locate(identity) is None


def test_a_plain_image_may_be_called_like_a_patch(empty, bundle, make_rows):
    with ArchiveWriter(empty) as writer:
        writer.add(make_rows(bundle, images=["s.svs@0_0", "x@1_2"], slides=["s.svs", "a@b"]))
        writer.publish()
    snapshot = open_archive(empty)
    assert snapshot.row(snapshot.locate("x@1_2")).source == "x@1_2"
    assert snapshot.row(snapshot.locate("a@b@224_1344")).source == "a@b"


def test_rows_know_their_shard(archive):
    snapshot = open_archive(archive)
    assert [shard.first_row for shard in snapshot.shards] == [0, 12]
    assert snapshot.shard_of(11) == (snapshot.shards[0], 11)
    assert snapshot.shard_of(12) == (snapshot.shards[1], 0)
    for row in (-1, 24):
        with pytest.raises(IndexError):
            snapshot.shard_of(row)


def test_sources_are_found_by_name(archive):
    snapshot = open_archive(archive)
    assert [s.name for s in snapshot.sources()].count("ü b.png") == 1
    assert snapshot.find_source("ü b.png").path == "ü b.png"  # /data is not beside the archive
    assert snapshot.find_source("t1").patient == "P0"
    assert snapshot.find_source("b.png").mpp is None
    assert set(snapshot.find_sources(["s1.svs", "d.png", "none"])) == {"s1.svs", "d.png"}
    assert len(list(snapshot.sources())) == snapshot.n_sources == 8


def test_an_older_snapshot_stays_as_it_was(archive):
    assert open_archive(archive, at=1).n_rows == 12
    assert open_archive(archive, at=1).locate("d.png") is None
    assert open_archive(archive).locate("d.png") is not None


def test_an_empty_archive_is_valid(empty):
    snapshot = open_archive(empty)
    assert (snapshot.n_rows, snapshot.n_sources, snapshot.classes, list(snapshot.shards)) == (
        0,
        0,
        (),
        [],
    )
    assert snapshot.locate("a") is None
    assert snapshot.find_source("a") is None
    assert list(snapshot.sources()) == []
    assert snapshot.bundle().description.bits == 16
