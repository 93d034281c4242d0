"""Faults found here one by one, each of them mended since."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress

import numpy as np
import pytest
from forge import Forge
from small_archives import add, build_rows, bundle_of, listed, new_archive, worn_archive
from wholeness import assert_whole, files_that_tell_of

from patchknn.archive import manifests, purge
from patchknn.archive.choice import Choice
from patchknn.archive.collect import collect_garbage
from patchknn.archive.compact import compact
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.manifests import manifest_file, manifest_numbers
from patchknn.archive.purge import purge_rows
from patchknn.archive.remove import remove_rows
from patchknn.archive.repair import repair
from patchknn.archive.rollback import roll_back
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import ConflictError, DamageError, PatchknnError
from patchknn.jobs.claims import Claims

_MONTH = 30 * 24 * 3600


@pytest.fixture
def archive(tmp_path):
    """Zarr and HDF5 shards, changes, history, an index."""
    return worn_archive(tmp_path)


@pytest.fixture
def plain(tmp_path):
    """Two shards in two snapshots, indexed."""
    path = new_archive(tmp_path)
    bundle = bundle_of(path)
    add(path, build_rows(bundle), "zarr")
    add(path, build_rows(bundle, seed=1, images=["c.png"], slides=["s3.svs"]), "hdf5")
    update_index(path)
    return path


def _aged(path):
    """As if all of an archive had been written a month ago."""
    then = time.time() - _MONTH
    for file in path.rglob("*"):
        os.utime(file, (then, then), follow_symlinks=False)


# Damage that is not named.


@pytest.mark.parametrize("array", ["codes", "bounds", "id_entries"])
def test_a_superseded_segment_that_is_still_searched_is_verified(plain, array):
    compact(plain)
    update_index(plain)
    old = open_archive(plain, 2).cover.segments[0].folder
    assert old != open_archive(plain).cover.segments[0].folder
    file = old / f"{array}.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert verify_archive(plain)


def test_a_newest_manifest_that_is_gone_is_named(plain):
    manifest_file(plain, 2).unlink()
    (finding,) = verify_archive(plain)
    assert finding.sentence.endswith("00000002.json, the newest, is missing.")
    with pytest.raises(DamageError, match="the newest, is missing"):
        open_archive(plain)
    done = repair(plain)
    assert (done.number, done.undone) == (2, ("the newest snapshot",))
    assert_whole(plain)


@pytest.mark.parametrize("array", ["label", "coords", "source_mtime_ns"])
def test_compact_does_not_make_damage_look_whole(plain, array):
    remove_rows(plain, Choice(ids=["a.png", "c.png"]))
    for shard in open_archive(plain).shards:
        place = shard.description.arrays[array]
        file = plain / "shards" / place.file
        data = bytearray(file.read_bytes())
        end = place.offset + place.nbytes
        if array == "label":
            values = np.frombuffer(bytes(data[place.offset : end]), "<i4")
            first, second = (int(np.flatnonzero(values == label)[-1]) for label in (0, 1))
            values = values.copy()
            values[[first, second]] = values[[second, first]]  # so many of each as before
            data[place.offset : end] = values.tobytes()
        else:
            data[place.offset] ^= 1
        file.write_bytes(data)
    assert verify_archive(plain)
    try:
        compact(plain)
    except PatchknnError:
        return
    collect_garbage(plain, keep=1, older_than=0)
    assert verify_archive(plain)


def test_compact_keeps_of_a_replaced_source_what_replaced_it(plain):
    rows = build_rows(bundle_of(plain), images=[], slides=["s1.svs"], seed=3)
    other = {"size": 4711, "quickhash": b"other content -", "patient": "P9", "mpp": 0.5}
    other["quickhash"] = other["quickhash"].ljust(16)
    rows = rows.with_sources(tuple(source._replace(**other) for source in rows.sources))
    with ArchiveWriter(plain) as writer:
        writer.add(rows, replace=True)
        writer.publish()
    before = open_archive(plain).find_source("s1.svs")
    assert before is not None
    assert before.patient == "P9"
    compact(plain)
    assert open_archive(plain).find_source("s1.svs") == before
    assert_whole(plain)


def test_a_replaced_source_leaves_its_patient_counted(plain):
    rows = build_rows(bundle_of(plain), images=[], slides=["s1.svs"], seed=3)
    other = (source._replace(size=4711, patient="P0") for source in rows.sources)
    with ArchiveWriter(plain) as writer:
        writer.add(rows.with_sources(tuple(other)), replace=True)
        writer.publish()
    assert_whole(plain)


# Several processes, one step after the other.


def test_a_source_that_comes_back_meanwhile_is_not_published_twice(plain):
    rows = build_rows(bundle_of(plain))
    remove_rows(plain, Choice(slides=["a.png"]))
    with ArchiveWriter(plain) as writer:
        writer.add(rows)
        roll_back(plain, 2)
        writer.publish()
    ids = [row.id for row in list_rows(open_archive(plain))]
    assert len(ids) == len(set(ids))


def test_gc_leaves_a_reader_what_was_the_newest_a_moment_ago(plain):
    _aged(plain)
    reader = open_archive(plain)
    compact(plain)
    collect_garbage(plain, keep=1)
    assert len(list(list_rows(reader))) == len(reader)


def test_a_rollback_beside_a_purge_brings_nothing_back(plain, monkeypatch):
    from patchknn.archive import rollback

    usual = rollback.publish_revision

    def purged_meanwhile(*arguments, **options):
        purge_rows(plain, Choice(slides=["s1.svs"]))
        return usual(*arguments, **options)

    monkeypatch.setattr(rollback, "publish_revision", purged_meanwhile)
    with suppress(PatchknnError):
        roll_back(plain, 1)
    assert_whole(plain)
    assert "s1.svs@0_896" not in listed(plain)


def test_a_rollback_beside_gc_leaves_an_archive_that_can_be_opened(plain, monkeypatch):
    from patchknn.archive import rollback

    compact(plain)
    _aged(plain)
    usual = rollback.publish_revision

    def collected_meanwhile(*arguments, **options):
        collect_garbage(plain, keep=1)
        return usual(*arguments, **options)

    monkeypatch.setattr(rollback, "publish_revision", collected_meanwhile)
    with suppress(PatchknnError):
        roll_back(plain, 1)
    assert_whole(plain)


def test_a_rollback_to_what_gc_deletes_at_that_moment_is_taken_back(plain, monkeypatch):
    from patchknn.archive import rollback

    before, usual = listed(plain), rollback.publish_revision

    def collected_afterwards(*arguments, **options):
        published = usual(*arguments, **options)
        for number in (0, 1):
            manifest_file(plain, number).unlink(missing_ok=True)
        return published

    monkeypatch.setattr(rollback, "publish_revision", collected_afterwards)
    with pytest.raises(ConflictError, match="gc deleted snapshot 1 meanwhile"):
        roll_back(plain, 1)
    assert listed(plain) == before
    assert_whole(plain)


@pytest.mark.parametrize("step", [(manifests, "_link"), (os, "link")], ids=["before", "late"])
def test_a_number_that_a_purge_has_had_and_deleted_is_not_taken_again(plain, monkeypatch, step):
    usual, done = getattr(*step), []

    def purged_meanwhile(*arguments, **options):
        if not done:
            done.append(1)
            purge_rows(plain, Choice(slides=["s1.svs"]))
        return usual(*arguments, **options)

    monkeypatch.setattr(*step, purged_meanwhile)
    with ArchiveWriter(plain) as writer:
        writer.add(build_rows(bundle_of(plain), images=["new.png"], slides=["new.svs"]))
        number = writer.publish()
    assert number == manifest_numbers(plain)[-1]
    assert "new.png" in listed(plain)
    assert "s1.svs@0_896" not in listed(plain)
    assert_whole(plain)


def test_a_purge_leaves_the_shards_of_a_writer_that_is_about_to_publish(plain, monkeypatch):
    usual, deleting = manifests._link, purge._delete_what_knew
    rows = build_rows(bundle_of(plain), seed=7, images=["y.png"], slides=["s1.svs"])
    purge_rows(plain, Choice(slides=["s1.svs"]))
    writer = ArchiveWriter(plain)
    writer.add(rows)
    asked = []

    def published_meanwhile(*arguments):
        def deleted_meanwhile(*others):
            asked.append(deleting(*arguments))
            return usual(*others)

        monkeypatch.setattr(manifests, "_link", deleted_meanwhile)
        writer.publish()
        monkeypatch.setattr(manifests, "_link", usual)
        return asked[0]

    monkeypatch.setattr(purge, "_delete_what_knew", published_meanwhile)
    report = purge_rows(plain, Choice(slides=["s1.svs"]))
    assert report.leftovers == 1  # said, for it is there again
    assert "y.png" in listed(plain)
    assert_whole(plain)


@pytest.mark.parametrize("how", ["purged", "collected"])
def test_a_writer_goes_on_where_what_it_published_on_is_gone(plain, how):
    bundle = bundle_of(plain)
    with ArchiveWriter(plain) as writer:
        writer.add(build_rows(bundle, images=["x.png"], slides=[]))
        writer.publish()
        if how == "purged":
            purge_rows(plain, Choice(slides=["s1.svs"]))
        else:
            compact(plain)
            collect_garbage(plain, keep=1, older_than=0)
        writer.add(build_rows(bundle, images=["y.png", "x.png"], slides=[]))
        writer.publish()
        assert writer.duplicates == 1
    assert {"x.png", "y.png"} <= set(listed(plain))
    assert_whole(plain)


def test_a_patient_is_purged_whose_slide_is_another_one_s_by_now(plain):
    rows = build_rows(bundle_of(plain), images=[], slides=["s1.svs"], seed=3)
    other = (source._replace(size=4711, patient="Q") for source in rows.sources)
    first = open_archive(plain).find_source("s1.svs")
    assert first is not None
    with ArchiveWriter(plain) as writer:
        writer.add(rows.with_sources(tuple(other)), replace=True)
        writer.publish()
    purge_rows(plain, Choice(patients=[first.patient]))
    left = open_archive(plain).find_source("s1.svs")
    assert left is not None
    assert left.patient == "Q"
    assert_whole(plain)


def test_what_a_repair_put_aside_is_purged_too(plain):
    shard = open_archive(plain).shards[0]
    file = plain / "shards" / shard.description.arrays["codes"].file
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    repair(plain)
    assert [f for f in (plain / "damaged").rglob("*") if b"s1.svs" in _bytes(f)]
    purge_rows(plain, Choice(slides=["s1.svs"]))
    assert [f for f in plain.rglob("*") if b"s1.svs" in _bytes(f)] == []
    assert_whole(plain)


def _bytes(file):
    return file.read_bytes() if file.is_file() else b""


# What is deleted, and what is left.


@pytest.mark.parametrize("folder", ["runs", "changes", "records"])
def test_gc_deletes_nothing_of_others_behind_a_link(archive, tmp_path, folder):
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "thesis.txt").write_text("years")
    if (archive / folder).exists():
        for file in (archive / folder).iterdir():
            file.rename(home / file.name)
        (archive / folder).rmdir()
    (archive / folder).symlink_to(home)
    with suppress(PatchknnError):
        collect_garbage(archive, older_than=0)
    assert (home / "thesis.txt").exists()
    assert (home / "letters").exists()


def test_gc_leaves_what_no_archive_writes(archive):
    note = archive / "shards" / "README.txt"
    note.write_text("who to ask")
    collect_garbage(archive, older_than=0)
    assert note.exists()


def test_gc_removes_what_a_killed_indexer_left(plain):
    left = plain / "index" / "segments" / ".tmp-0123456789abcdef-0123456789ab"
    left.mkdir()
    (left / "codes.bin").write_bytes(b"\0" * 1000)
    collect_garbage(plain, older_than=0)
    assert not left.exists()


@pytest.mark.parametrize(
    "names",
    [
        [
            "changes/..",
            "shards/.",
            "shards/..",
            "shards/docs",
            "damaged/mine",
            "records/\0",
            5,
            None,
        ],
        5,
        {"changes/..": 1},
    ],
)
def test_a_purge_deletes_nothing_that_its_journal_has_no_right_to_name(plain, tmp_path, names):
    theirs, link = tmp_path / "thesis", plain / "shards" / "docs"
    theirs.mkdir()
    link.symlink_to(theirs)
    (plain / "damaged" / "mine").mkdir(parents=True)
    journal = plain / ".tmp-0123456789ab-purge.json"
    journal.write_text(json.dumps({"files": names}))
    before = listed(plain)
    purge_rows(plain, Choice(slides=["s1.svs"]))
    assert listed(plain) == {i: label for i, label in before.items() if "s1.svs" not in i}
    assert theirs.is_dir()
    assert link.is_symlink()
    assert (plain / "damaged" / "mine").is_dir()
    assert not journal.exists()
    link.unlink()
    assert_whole(plain)


@pytest.mark.parametrize("how", ["a day later", "by gc"])
def test_a_purge_forgets_what_a_killed_writer_left(plain, how):
    name = "withdrawn.svs"
    rows = build_rows(bundle_of(plain), images=[], slides=[name])
    killed = ArchiveWriter(plain)
    killed.add(rows)
    killed.flush()  # and no more: as if it had been killed now
    add(plain, rows)
    report = purge_rows(plain, Choice(slides=[name]))
    assert report.leftovers == 2  # a writer may be at it still: a container and its JSON
    assert [file for file in plain.rglob("*") if name.encode() in _bytes(file)]
    if how == "a day later":
        _aged(plain)
        assert purge_rows(plain, Choice(slides=[name])).leftovers == 0
    else:
        collect_garbage(plain, older_than=0)  # as its warning says
    assert [file for file in plain.rglob("*") if name.encode() in _bytes(file)] == []
    assert_whole(plain)


@pytest.mark.parametrize("how", ["a day later", "by gc"])
def test_a_purge_forgets_what_a_killed_embed_had_claimed(plain, how):
    killed = Claims(plain / ".claims")
    assert killed.claim("s1.svs")  # and no more: as if it had been killed now
    assert purge_rows(plain, Choice(slides=["s1.svs"])).leftovers == 2  # a unit and who has it
    collect_garbage(plain)
    assert killed.holds("s1.svs")
    if how == "a day later":
        _aged(plain)
        assert purge_rows(plain, Choice(slides=["s1.svs"])).leftovers == 0
    else:
        collect_garbage(plain, older_than=0)  # as its warning says
    assert files_that_tell_of(plain, "s1.svs") == []
    killed.close()
    assert_whole(plain)


def test_a_writer_whose_disk_was_full_for_a_moment_can_publish_all_the_same(plain, monkeypatch):
    from patchknn.archive import pending as module

    usual, calls = module.write_shard, []

    def full_once(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return usual(*arguments, **options)

    bundle = bundle_of(plain)
    with ArchiveWriter(plain, shard_bytes=60) as writer:
        writer.add(build_rows(bundle, images=["x.png"], slides=["own.svs"]))
        writer.flush()
        add(plain, build_rows(bundle, images=["x.png"], slides=[]))
        monkeypatch.setattr(module, "write_shard", full_once)
        with pytest.raises(OSError, match="No space"):
            writer.publish()
        writer.publish()
    assert "own.svs@0_448" in listed(plain)


# What a hostile author may have written.


def test_a_segment_leads_to_no_file_outside(plain, tmp_path):
    shard = open_archive(plain).shards[0]
    inner = shard.content.features_file[len(shard.uuid) :]
    evil = tmp_path / "evil"
    evil.write_bytes(bytes((plain / "shards" / shard.content.features_file).stat().st_size))
    expected = shard.features.copy()

    def edit(head):
        names = head["file_sets"]
        head["file_sets"] = [
            [".zarr/../../../evil" if name == inner else name for name in some] for some in names
        ]

    Forge(plain).segment(edit)
    assert np.array_equal(open_archive(plain).shards[0].features, expected)


def test_the_last_number_of_eight_digits_is_not_the_last(plain):
    Forge(plain).manifest_numbered("99999999")
    remove_rows(plain, Choice(ids=["a.png"]))
    assert open_archive(plain).number == 100_000_000
    assert "a.png" not in listed(plain)


def test_nothing_is_acknowledged_that_no_reader_will_see(plain):
    Forge(plain).manifest_numbered("999999999999")
    try:
        remove_rows(plain, Choice(ids=["a.png"]))
    except PatchknnError:
        return
    assert "a.png" not in listed(plain)


def test_a_folder_of_shards_may_be_a_link(plain, tmp_path):
    before = listed(plain)
    shutil.move(plain / "shards", tmp_path / "elsewhere")
    (plain / "shards").symlink_to(tmp_path / "elsewhere")
    assert listed(plain) == before
    remove_rows(plain, Choice(ids=["a.png"]))
    compact(plain)
    collect_garbage(plain, keep=1, older_than=0)
    del before["a.png"]
    assert listed(plain) == before
    assert_whole(plain)
