"""Adding and publishing: what becomes visible, what is refused, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive import manifests
from patchknn.archive import writer as writer_module
from patchknn.archive.choice import Choice
from patchknn.archive.create import create_archive
from patchknn.archive.index.update import update_index
from patchknn.archive.purge import purge_rows
from patchknn.archive.rows import Rows
from patchknn.archive.sealed import sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import ConflictError, DamageError, InputError, StoppedError, UsageError


def _ids(path):
    snapshot = open_archive(path)
    return [snapshot.row(row).id for row in range(snapshot.n_rows)]


def changed(rows, **other):
    return Rows(**(vars(rows) | other))


def _files(path):
    return sorted(file.name for file in (path / "shards").iterdir())


def test_rows_are_seen_from_publish_on(empty, bundle, make_rows):
    with ArchiveWriter(empty) as writer:
        assert writer.add(make_rows(bundle)) == 12
        writer.flush()
        assert open_archive(empty).n_rows == 0
        assert writer.publish() == 1
        assert open_archive(empty).n_rows == 12
        assert writer.publish() is None
    assert open_archive(empty).number == 1
    assert open_archive(empty, at=0).n_rows == 0
    assert verify_archive(empty) == []


def test_a_manifest_that_a_repair_put_in_the_place_of_the_known_one_is_followed(
    archive, bundle, make_rows
):
    file = archive / "manifests" / "00000002.json"
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, images=["k.png"], slides=[]))
        value = json.loads(file.read_bytes())
        shards = {name: column[:1] for name, column in value["shards"].items()}
        value |= {"nonce": "f" * 32, "shards": shards, "rows": 12, "sources": 4, "totals": None}
        del value["checksum"]
        file.write_bytes(sealed_text(value))
        assert writer.publish() == 3
    manifest = open_archive(archive).manifest
    assert (manifest.parent, manifest.rows, manifest.sources) == ("f" * 32, 13, 5)
    assert verify_archive(archive) == []


def test_a_writer_goes_on_when_what_it_has_not_looked_at_yet_is_purged(archive, bundle, make_rows):
    update_index(archive)
    with ArchiveWriter(archive) as writer:
        purge_rows(archive, Choice(slides=["s1.svs", "t1"]))
        assert writer.add(make_rows(bundle, images=["k.png", "a.png"], slides=["s1.svs"])) == 6
        writer.publish()
    assert writer.duplicates == 1  # a.png is there still
    assert "s1.svs@0_896" in _ids(archive)
    assert verify_archive(archive) == []


@pytest.mark.parametrize("fault", ["a clash", "a feature that is not finite"])
def test_what_was_to_be_replaced_and_was_not_taken_in_stays(archive, bundle, make_rows, fault):
    before = _ids(archive)
    rows = make_rows(bundle, images=["a.png", "k.png"], slides=[], content=1)
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, images=["k.png"], slides=[]))
        if fault == "a clash":  # k.png is not published: it cannot be replaced
            with pytest.raises(ConflictError):
                writer.add(rows, replace=True)
        else:
            rows = make_rows(bundle, images=["a.png"], slides=[], content=1)
            rows.features[0, 0] = np.nan
            with pytest.raises(InputError):
                writer.add(rows, replace=True)
        writer.publish()
    manifest = open_archive(archive).manifest
    assert (manifest.rows, manifest.rows_removed) == (len(before) + 1, 0)
    assert open_archive(archive).locate("a.png") is not None


def test_what_was_not_published_is_removed(empty, bundle, make_rows):
    with ArchiveWriter(empty) as writer:
        writer.add(make_rows(bundle))
        writer.flush()
        assert _files(empty)
    assert _files(empty) == []
    with ArchiveWriter(empty, format="hdf5") as writer:
        writer.add(make_rows(bundle))
        writer.flush()
        writer.close()
        assert writer.publish() is None
    assert _files(empty) == []


def test_a_big_addition_becomes_several_shards_of_whole_sources_counts(empty, bundle, make_rows):
    with ArchiveWriter(empty, shard_bytes=150) as writer:
        for seed in range(3):
            writer.add(make_rows(bundle, seed=seed, images=[f"{seed}.png"], slides=[f"{seed}.svs"]))
        writer.publish()
    snapshot = open_archive(empty)
    assert len(snapshot.shards) > 3
    assert (snapshot.n_rows, snapshot.n_sources) == (18, 6)
    assert len(list(snapshot.sources())) == 6
    assert [snapshot.locate(snapshot.row(row).id) for row in range(18)] == list(range(18))
    assert verify_archive(empty) == []


def test_a_source_may_come_in_parts_until_it_is_published(empty, bundle, make_rows):
    rows = make_rows(bundle)
    with ArchiveWriter(empty) as writer:
        for part in np.array_split(np.arange(len(rows)), 4):
            writer.add(rows.take(part))
        writer.publish()
    assert open_archive(empty).n_sources == 4
    assert len(set(_ids(empty))) == 12


def test_the_same_content_again_is_left_out(archive, bundle, make_rows):
    before = _ids(archive)
    with ArchiveWriter(archive) as writer:
        assert writer.add(make_rows(bundle, images=["b.png", "new.png"])) == 1
        assert writer.duplicates == 11
        writer.publish()
    assert sorted(_ids(archive)) == sorted([*before, "new.png"])
    assert verify_archive(archive) == []


def test_the_same_patch_twice_in_one_addition_is_kept_once(empty, bundle, make_rows):
    rows = make_rows(bundle)
    with ArchiveWriter(empty) as writer:
        writer.add(rows)
        writer.add(rows.take(np.array([3, 0])))
        writer.publish()
        assert writer.duplicates == 2
    assert len(_ids(empty)) == len(set(_ids(empty))) == 12


@pytest.mark.parametrize("published", [True, False])
def test_a_name_with_other_content_is_refused_and_both_files_named(
    empty, bundle, make_rows, published
):
    other = make_rows(bundle, images=["x.png", "a.png"], slides=[], content=1)
    sources = [s._replace(path=f"/elsewhere/{s.name}") for s in other.sources]
    other = changed(other, sources=tuple(sources))
    with ArchiveWriter(empty) as writer:
        writer.add(make_rows(bundle))
        if published:
            writer.publish()
        with pytest.raises(ConflictError, match=r"/elsewhere/a\.png and (/data/)?a\.png are"):
            writer.add(other)
        writer.publish()
    assert "x.png" not in _ids(empty)
    assert len(_ids(empty)) == 12


def test_two_writers_with_one_source_publish_it_once(empty, bundle, make_rows):
    with ArchiveWriter(empty) as first, ArchiveWriter(empty, format="hdf5") as second:
        first.add(make_rows(bundle))
        second.add(make_rows(bundle, images=["b.png", "c.png"], slides=["s3.svs"]))
        assert first.publish() == 1
        assert second.publish() == 2
        assert second.duplicates == 1
    ids = _ids(empty)
    assert len(ids) == len(set(ids)) == 18
    assert open_archive(empty).n_sources == 6
    assert verify_archive(empty) == []
    assert len(_files(empty)) == 4


def test_two_writers_with_two_files_of_one_name_keep_the_rest(empty, bundle, make_rows):
    with ArchiveWriter(empty) as first, ArchiveWriter(empty) as second:
        first.add(make_rows(bundle))
        second.add(make_rows(bundle, images=["b.png", "c.png"], slides=[], content=1))
        first.publish()
        with pytest.raises(ConflictError, match=r"'b\.png'"):
            second.publish()
        assert second.publish() is None
    assert "c.png" in _ids(empty)
    assert len(_ids(empty)) == 13
    assert verify_archive(empty) == []


def test_classes_are_united_and_labels_follow(empty, bundle, make_rows):
    for number, classes in enumerate([("A", "B"), ("C", "A")]):
        rows = make_rows(bundle, images=[f"{number}.png"], slides=[f"{number}.svs"])
        with ArchiveWriter(empty) as writer:
            writer.add(changed(rows, classes=classes))
            writer.publish()
    snapshot = open_archive(empty)
    assert snapshot.classes == ("A", "B", "C")
    stored = {snapshot.row(i).id: snapshot.row(i).label for i in range(snapshot.n_rows)}
    assert [stored[f"0.svs@{224 * i}_448"] for i in range(5)] == ["A", "B", None, "A", "B"]
    assert [stored[f"1.svs@{224 * i}_448"] for i in range(5)] == ["C", "A", None, "C", "A"]
    with ArchiveWriter(empty) as writer:
        first, second = (make_rows(bundle, images=[name], slides=[]) for name in ("p.png", "q.png"))
        labels = np.array([0], np.int32)
        writer.add(changed(first, classes=("D",), labels=labels))
        writer.add(changed(second, classes=("B",), labels=labels))
        writer.publish()
    snapshot = open_archive(empty)
    assert snapshot.row(snapshot.locate("p.png")).label == "D"
    assert snapshot.row(snapshot.locate("q.png")).label == "B"


def test_features_are_rounded_and_codes_are_those_of_the_rounded(empty, bundle, make_rows):
    rows = make_rows(bundle, dtype="float32")
    rounded = rows.features.astype(np.float16)
    with ArchiveWriter(empty) as writer:
        writer.add(changed(rows, codes=bundle.codes(rounded)))
        writer.publish()
    (shard,) = open_archive(empty).shards
    assert shard.features.dtype == np.float16
    assert np.array_equal(shard.codes, bundle.codes(shard.features))


def test_rows_that_cannot_be_are_refused(empty, bundle, make_rows, make_bundle, tmp_path):
    rows = make_rows(bundle)
    bad = rows.features.copy()
    bad[3, 2] = np.inf
    huge = rows.features.astype(np.float32)
    huge[4, 0] = 1e6
    with ArchiveWriter(empty) as writer:
        with pytest.raises(InputError, match=r"s1\.svs: .* not finite"):
            writer.add(changed(rows, features=bad))
        with pytest.raises(InputError, match="float32 features"):
            writer.add(changed(rows, features=huge))
        with pytest.raises(ConflictError, match="do not fit an archive of 12 features"):
            writer.add(changed(rows, features=rows.features[:, :5]))
        with pytest.raises(ConflictError, match="do not fit"):
            writer.add(changed(rows, labels=rows.labels + 2))
        with pytest.raises(ConflictError, match="12 of 12 codes do not belong"):
            writer.add(changed(rows, codes=~rows.codes))
        assert writer.publish() is None
    with pytest.raises(UsageError, match="zarr or hdf5"):
        ArchiveWriter(empty, format="parquet")


def test_another_encoder_or_setting_is_refused(archive, bundle, make_bundle, tmp_path):
    create_archive(archive, bundle, patch_px=224, mpp=0.5)
    other = make_bundle(tmp_path / "other", seed=9)
    with pytest.raises(ConflictError) as error:
        create_archive(archive, other, patch_px=224, mpp=0.5)
    assert bundle.fingerprint[:16] in str(error.value)
    assert other.fingerprint[:16] in str(error.value)
    with pytest.raises(ConflictError, match=r"mpp 0\.5 \(asked for: None\)"):
        create_archive(archive, bundle, patch_px=224, mpp=None)
    with pytest.raises(ConflictError, match="is not an archive"):
        create_archive(tmp_path, bundle, patch_px=224, mpp=0.5)
    assert open_archive(archive).n_rows == 24


def test_orientations_are_kept_where_there_are_several(tmp_path, bundle, archive):
    # Readers of version 1, which do not know them, still read what has none.
    stored = json.loads((archive / "archive.json").read_bytes())
    assert (stored["format_version"], "orientations" in stored) == (1, False)
    assert open_archive(archive).settings.orientations == 1
    path = tmp_path / "several"
    create_archive(path, bundle, patch_px=224, mpp=0.5, orientations=8)
    assert json.loads((path / "archive.json").read_bytes())["format_version"] == 2
    assert open_archive(path).settings.orientations == 8
    assert verify_archive(path) == []
    with pytest.raises(ConflictError, match=r"orientations 8 \(asked for: 4\)"):
        create_archive(path, bundle, patch_px=224, mpp=0.5, orientations=4)


def test_an_archive_can_do_without_the_backbone(tmp_path, bundle, make_rows):
    path = tmp_path / "light"
    create_archive(path, bundle, patch_px=224, mpp=0.5, with_backbone=False)
    assert not open_archive(path).bundle().has_backbone
    assert open_archive(path).bundle().fingerprint == bundle.fingerprint
    assert verify_archive(path) == []


def test_leftovers_are_ignored_and_removed_after_a_week_by_the_first_of_a_day(archive, monkeypatch):
    old = archive / "shards" / f".tmp-{'a' * 32}.zarr"
    young = archive / "manifests" / f".tmp-{'b' * 12}-00000002.json"
    old.mkdir()
    (old / "zarr.json").write_text("{")
    young.write_text("{")
    eight_days_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (eight_days_ago, eight_days_ago))
    assert open_archive(archive).n_rows == 24
    assert verify_archive(archive) == []
    with ArchiveWriter(archive):
        assert old.exists()
    monkeypatch.setattr(writer_module, "now", lambda: "2999-01-01T00:00:00+00:00")
    with ArchiveWriter(archive):
        assert not old.exists()
    assert young.exists()


_WRITE = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import conftest
from patchknn.archive.writer import ArchiveWriter
from patchknn.archive import {module} as module
from patchknn.bundle import load_bundle
path = Path({path!r})
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
bundle = load_bundle(path / "encoder")
rows = conftest.build_rows(bundle, images=["k.png"], slides=["k.svs"])
with ArchiveWriter(path, format={format!r}) as writer:
    writer.add(rows)
    {when}
    writer.publish()
"""


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
@pytest.mark.parametrize(
    "step",
    [
        ("shard_writer", "module.write_columns = kill"),
        ("shard_writer", "module.outside_checksum = kill"),
        ("streaming", "module.os.pwrite = kill"),
        ("shard_writer", "module.fsync_directory = kill"),
        ("shard_writer", "writer.flush(); kill()"),
        ("manifests", "module.os.link = kill"),
    ],
)
def test_a_writer_killed_at_any_step_loses_nothing_that_was_published(
    archive, bundle, make_rows, container, step
):
    module, when = step
    before = _ids(archive)
    program = _WRITE.format(
        tests=str(Path(__file__).parent),
        path=str(archive),
        module=module,
        when=when,
        format=container,
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == -signal.SIGKILL, finished.stderr
    assert _ids(archive) == before
    assert verify_archive(archive) == []
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, images=["k.png"], slides=["k.svs"]))
        writer.publish()
    assert len(_ids(archive)) == 30
    assert verify_archive(archive) == []


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_a_disk_that_takes_no_more_loses_nothing(archive, container):
    before, files = _ids(archive), _files(archive)
    # A limit on the size of files stands in for a full disk: the same OSError from a real write.
    program = _WRITE.format(
        tests=str(Path(__file__).parent),
        path=str(archive),
        module="shard_writer",
        when="import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))",
        format=container,
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 1
    assert "OSError" in finished.stderr, finished.stderr
    assert _ids(archive) == before
    assert _files(archive) == files
    assert verify_archive(archive) == []


def test_a_full_disk_while_publishing_can_be_tried_again(archive, bundle, make_rows, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device", "manifest")

    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, images=["z.png"], slides=[]))
        with monkeypatch.context() as patch:
            patch.setattr(manifests, "fsync_file", full)
            with pytest.raises(OSError, match="No space"):
                writer.publish()
        assert open_archive(archive).n_rows == 24
        assert writer.publish() == 3
    assert open_archive(archive).n_rows == 25
    assert not list(archive.glob("manifests/.tmp-*"))
    assert verify_archive(archive) == []


def _publish_and_be_stopped(writer, monkeypatch):
    usual = manifests.fsync_directory

    def stopped(folder):  # the first thing after the link
        usual(folder)
        message = "stopped by SIGTERM"
        raise StoppedError(message)

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "fsync_directory", stopped)
        with pytest.raises(StoppedError):
            writer.publish()


@pytest.mark.parametrize("then", ["close", "publish"])
def test_a_signal_just_after_publishing_does_not_take_it_back(
    archive, bundle, make_rows, monkeypatch, then
):
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, images=["z.png"], slides=[]))
        _publish_and_be_stopped(writer, monkeypatch)
        if then == "publish":
            writer.add(make_rows(bundle, images=["zz.png"], slides=[]))
            assert writer.publish() == 4
    ids = _ids(archive)
    assert ("z.png" in ids, "zz.png" in ids) == (True, then == "publish")
    assert len(ids) == len(set(ids))
    assert verify_archive(archive) == []


def _every_file(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def _other_content(rows):
    return rows.with_sources(tuple(source._replace(size=4711) for source in rows.sources))


@pytest.mark.parametrize("step", ["after_removal", "new_patients", "manifest"])
def test_what_would_have_been_replaced_is_removed_with_the_rest(
    archive, bundle, make_rows, monkeypatch, step
):
    def damaged(*_, **__):
        message = "a shard is damaged"
        raise DamageError(message)

    where = (manifests, "_link") if step == "manifest" else (writer_module, step)
    before = _every_file(archive)
    with ArchiveWriter(archive) as writer:
        writer.add(_other_content(make_rows(bundle, images=["b.png"], slides=[])), replace=True)
        with monkeypatch.context() as patch:
            patch.setattr(*where, damaged)
            with pytest.raises(DamageError):
                writer.publish()
    assert _every_file(archive) == before


@pytest.mark.parametrize("then", ["close", "close, uncertain", "publish"])
def test_what_was_replaced_before_a_signal_stays_replaced(
    archive, bundle, make_rows, monkeypatch, then
):
    def damaged(_):
        message = "the newest is missing"
        raise DamageError(message)

    with ArchiveWriter(archive) as writer:
        writer.add(_other_content(make_rows(bundle, images=["b.png"], slides=[])), replace=True)
        _publish_and_be_stopped(writer, monkeypatch)
        if then == "publish":
            writer.add(make_rows(bundle, images=["zz.png"], slides=[]))
            assert writer.publish() == 4
        elif then == "close, uncertain":
            with monkeypatch.context() as patch:
                patch.setattr(writer_module, "manifest_numbers", damaged)
                writer.close()
    assert open_archive(archive).find_source("b.png").size == 4711
    assert len(list(archive.glob("changes/*.json"))) == 1
    assert verify_archive(archive) == []


def test_an_archive_that_appears_while_one_looks_is_an_archive(tmp_path, bundle, monkeypatch):
    path, made = tmp_path / "archive", tmp_path / "made"
    create_archive(made, bundle, patch_px=224, mpp=0.5)
    path.mkdir()
    usual = Path.iterdir

    def meanwhile(folder):  # another process is done between two looks of this one
        if made.exists():
            made.rename(path)
        return usual(folder)

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    assert open_archive(path).n_rows == 0
