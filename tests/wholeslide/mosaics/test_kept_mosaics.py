"""Mosaics of an archive: of the right rows, kept, taken over, made anew where they must be."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.index.names import mosaics_folder
from patchknn.archive.index.update import update_index
from patchknn.archive.purge import purge_rows
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.wholeslide.mosaics import making
from patchknn.wholeslide.mosaics.kept_mosaics import mosaics_of_archive
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings

SETTINGS = MosaicSettings(share=0.15, clusters=4)


@pytest.fixture
def chosen(monkeypatch):
    """How many mosaics were chosen, as a list that grows."""
    calls = []
    choose = making.choose_mosaic

    def counted(*given):
        calls.append(len(given[0]))
        return choose(*given)

    monkeypatch.setattr(making, "choose_mosaic", counted)
    return calls


def _content(mosaics):
    return [
        (one.name, one.patient, one.patches, one.features.tolist(), one.coords.tolist())
        for one in map(mosaics.mosaic, range(mosaics.n_slides))
    ]


def _folders(archive):
    return [entry for entry in mosaics_folder(archive).iterdir() if entry.is_dir()]


def _add(archive, bundle, rows):
    with ArchiveWriter(archive) as writer:
        writer.add(rows)
        writer.publish()


def test_they_hold_rows_of_the_archive_as_they_are_stored(make_archive, make_cohort):
    archive = make_archive(make_cohort(3), parts=2)  # each slide lies in two shards
    snapshot = open_archive(archive)
    mosaics = mosaics_of_archive(snapshot, SETTINGS).mosaics
    assert list(mosaics.names) == sorted(name for name, _, _ in make_cohort(3))
    assert mosaics.patches.tolist() == [40] * 6
    assert np.diff(mosaics.starts).tolist() == [6] * 6
    for slide in range(mosaics.n_slides):
        one = mosaics.mosaic(slide)
        for feature, code, (x, y) in zip(one.features, one.codes, one.coords.tolist(), strict=True):
            rows = [
                (shard, row)
                for shard in snapshot.shards
                for row in range(shard.n)
                if shard.source_names[int(shard.source[row])] == one.name
                and shard.coords[row].tolist() == [x, y]
                and np.array_equal(shard.features[row], feature)
            ]
            assert rows
            assert all(np.array_equal(shard.codes[row], code) for shard, row in rows)


def test_they_are_kept_and_changed_slides_alone_are_looked_at(
    make_archive, make_cohort, make_rows, bundle, chosen
):
    archive = make_archive(make_cohort(3))
    first = mosaics_of_archive(open_archive(archive), SETTINGS).mosaics
    assert len(chosen) == 6
    again = mosaics_of_archive(open_archive(archive), SETTINGS).mosaics
    assert _content(again) == _content(first)
    _add(archive, bundle, make_rows(bundle, [("new.svs", "N", "benign")], seed=5))
    remove_rows(archive, Choice(slides=("p0s0.svs",)))
    remove_rows(archive, Choice(ids=("p1s0.svs@0_0",)))
    changed = mosaics_of_archive(open_archive(archive), SETTINGS).mosaics
    assert len(chosen) == 8  # the new one, and the one that lost a patch
    assert "p0s0.svs" not in list(changed.names)
    compact(archive)
    assert _content(mosaics_of_archive(open_archive(archive), SETTINGS).mosaics) == _content(
        changed
    )
    assert len(chosen) == 8
    mosaics_of_archive(open_archive(archive), SETTINGS._replace(seed=1))
    assert len(chosen) == 14


def test_they_do_not_hang_on_threads_shards_or_what_was_kept(make_archive, make_cohort):
    slides = make_cohort(4)
    archive = make_archive(slides)
    snapshot = open_archive(archive)
    first = _content(mosaics_of_archive(snapshot, SETTINGS, threads=3).mosaics)
    shutil.rmtree(mosaics_folder(archive))
    assert _content(mosaics_of_archive(snapshot, SETTINGS).mosaics) == first


def test_a_relabelling_leaves_them_as_they_are(make_archive, make_cohort, chosen):
    from patchknn.archive.relabel import Correction, relabel_patches

    archive = make_archive(make_cohort(2))
    mosaics_of_archive(open_archive(archive), SETTINGS)
    relabel_patches(archive, {"p0s0.svs@0_0": Correction("benign", "Ann")})
    mosaics_of_archive(open_archive(archive), SETTINGS)
    assert len(chosen) == 4
    assert len(_folders(archive)) == 1


@pytest.mark.parametrize("array", ["codes", "starts", "names_bytes"])
def test_damage_is_found_by_verify_and_made_anew(make_archive, make_cohort, array):
    archive = make_archive(make_cohort(2))
    snapshot = open_archive(archive)
    first = _content(mosaics_of_archive(snapshot, SETTINGS).mosaics)
    assert verify_archive(archive) == []
    (folder,) = _folders(archive)
    file = folder / f"{array}.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    (finding,) = verify_archive(archive)
    assert finding.file == f"index/mosaics/{folder.name}/{array}.bin"
    assert f"remove them by 'patchknn archive index {archive} --rebuild'" in finding.sentence
    assert _content(mosaics_of_archive(snapshot, SETTINGS).mosaics) == first
    assert verify_archive(archive) == []


def test_damaged_features_are_found_by_verify(make_archive, make_cohort):
    archive = make_archive(make_cohort(1))
    mosaics_of_archive(open_archive(archive), SETTINGS)
    (folder,) = _folders(archive)
    file = folder / "features.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    assert [finding.file.rpartition("/")[2] for finding in verify_archive(archive)] == [file.name]
    file.unlink()
    assert len(verify_archive(archive)) == 1
    update_index(archive, rebuild=True)
    assert verify_archive(archive) == []
    assert mosaics_of_archive(open_archive(archive), SETTINGS).problem is None


def test_what_cannot_be_kept_is_made_all_the_same(make_archive, make_cohort):
    archive = make_archive(make_cohort(2))
    expected = _content(mosaics_of_archive(open_archive(archive), SETTINGS).mosaics)
    shutil.rmtree(mosaics_folder(archive))
    mosaics_folder(archive).write_bytes(b"in the way")
    kept = mosaics_of_archive(open_archive(archive), SETTINGS)
    assert f"cannot be kept in {mosaics_folder(archive)}" in kept.problem
    assert _content(kept.mosaics) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_archive_that_may_only_be_read_is_searched_without(make_archive, make_cohort):
    archive = make_archive(make_cohort(2))
    expected = _content(mosaics_of_archive(open_archive(archive), SETTINGS).mosaics)
    shutil.rmtree(mosaics_folder(archive))
    for folder in (archive, archive / "index"):
        folder.chmod(0o500)
    kept = mosaics_of_archive(open_archive(archive), SETTINGS)
    assert "cannot be kept in" in kept.problem
    assert _content(kept.mosaics) == expected


def test_a_full_disk_leaves_nothing_and_is_said(make_archive, make_cohort, little_room):
    archive = make_archive(make_cohort(2))
    with little_room(1000):
        kept = mosaics_of_archive(open_archive(archive), SETTINGS)
    assert "cannot be kept in" in kept.problem
    assert kept.mosaics.n_slides == 4
    assert list(mosaics_folder(archive).iterdir()) == []


def test_what_is_superseded_goes_after_a_day(make_archive, make_cohort, make_rows, bundle):
    archive = make_archive(make_cohort(1))
    mosaics_of_archive(open_archive(archive), SETTINGS)
    other = mosaics_of_archive(open_archive(archive), SETTINGS._replace(seed=3))
    (before,) = [f for f in _folders(archive) if '"seed": 0' in (f / "mosaics.json").read_text()]
    _add(archive, bundle, make_rows(bundle, [("new.svs", None, None)]))
    mosaics_of_archive(open_archive(archive), SETTINGS)
    assert len(_folders(archive)) == 3
    mark = before.with_name(f".superseded-{before.name}")
    os.utime(mark, (1, 1))
    _add(archive, bundle, make_rows(bundle, [("newer.svs", None, None)]))
    mosaics_of_archive(open_archive(archive), SETTINGS)
    assert not before.exists()
    assert not mark.exists()
    assert len(_folders(archive)) == 3  # of other settings, superseded today, and in use
    assert other.mosaics.n_slides == 2


def test_a_purge_leaves_nothing_of_them(make_archive, make_cohort):
    archive = make_archive(make_cohort(2))
    mosaics_of_archive(open_archive(archive), SETTINGS)
    purge_rows(archive, Choice(patients=("P0",)))
    assert not any(b"p0s0" in file.read_bytes() for file in archive.rglob("*") if file.is_file())
    assert list(mosaics_of_archive(open_archive(archive), SETTINGS).mosaics.names) == [
        "p1s0.svs",
        "p1s1.svs",
    ]


def test_of_an_empty_archive_there_are_none(make_archive):
    assert mosaics_of_archive(open_archive(make_archive()), SETTINGS).mosaics.n_slides == 0
