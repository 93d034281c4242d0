"""Archives taken into one: each patch once, conflicts said, nothing half done."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.archive import merge as merge_module
from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.create import create_archive, create_like
from patchknn.archive.history import label_history
from patchknn.archive.listing import list_rows
from patchknn.archive.merge import Other, merge_archives
from patchknn.archive.relabel import Correction, relabel_patches, rename_class
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import ConflictError, DamageError


@pytest.fixture
def site(tmp_path, bundle, make_rows):
    """``site(name, **rows)``: an archive of its own."""

    def made(name, **settings):
        path = tmp_path / name
        create_archive(path, bundle, patch_px=224, mpp=0.5)
        with ArchiveWriter(path) as writer:
            writer.add(make_rows(bundle, **settings))
            writer.publish()
        return path

    return made


def _content(path):
    snapshot = open_archive(path)
    rows = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        rows[row.id] = (row.label, row.patient, row.code, shard.features[local].tobytes())
    return rows


def _files(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def test_what_the_others_have_is_added_once(site, archive):
    other = site("other", seed=7, images=["x.png"], slides=["u1"])
    relabel_patches(other, {"x.png": Correction("NEW")})
    remove_rows(other, Choice(ids=["u1@224_448"]))
    theirs, ours = _content(other), _content(archive)
    done = merge_archives(archive, [Other(other), Other(other)])
    assert (done.rows, done.duplicates, done.sources) == (5, 5, 2)
    assert _content(archive) == {**ours, **theirs}
    assert open_archive(archive).n_sources == 10
    assert verify_archive(archive) == []
    again = merge_archives(archive, [Other(other)])
    assert (again.rows, again.duplicates, again.number) == (0, 5, None)


@pytest.mark.parametrize("step", ["new_patients", "totals_of"])
def test_a_merge_that_fails_after_writing_leaves_nothing(site, archive, monkeypatch, step):
    other = site("other", seed=7, images=["x.png"], slides=["u1"])
    relabel_patches(other, {"x.png": Correction("NEW")})
    before = _files(archive)

    def damaged(*_):
        assert len(list(archive.rglob(".tmp-*.json"))) == 2  # a shard, and what was relabelled
        message = "a shard is damaged"
        raise DamageError(message)

    monkeypatch.setattr(merge_module, step, damaged)
    with pytest.raises(DamageError):
        merge_archives(archive, [Other(other)])
    assert _files(archive) == before


def test_one_name_of_two_contents_is_an_error_unless_sites_are_told_apart(site, tmp_path):
    one, two = site("one"), site("two", seed=3, content=1)
    whole = tmp_path / "whole"
    create_like(whole, open_archive(one))
    with pytest.raises(ConflictError, match=r"of one name: .*'a.png'"):
        merge_archives(whole, [Other(one), Other(two)])
    assert len(open_archive(whole)) == 0
    assert not list((whole / "shards").iterdir())
    merge_archives(whole, [Other(one, "A"), Other(two, "B")])
    names = {row.source for row in list_rows(open_archive(whole))}
    assert {f"{site}/{n}" for site in "AB" for n in ("a.png", "s1.svs")} < names
    assert {row.patient for row in list_rows(open_archive(whole))} == {
        None,
        "A/P0",
        "A/P1",
        "B/P0",
        "B/P1",
    }
    found = {
        key.split("/", 1)[1]: value[3] for key, value in _content(whole).items() if key[0] == "A"
    }
    assert found == {key: value[3] for key, value in _content(one).items()}
    assert verify_archive(whole) == []


def test_labels_that_disagree_are_listed_and_the_first_stays(site, archive):
    other = site("other")
    before = _content(archive)
    relabel_patches(other, {"b.png": Correction("Q"), "s1.svs@0_896": Correction(None)})
    done = merge_archives(archive, [Other(other)])
    told = {(c.id, c.kept, c.other) for c in done.conflicts}
    assert told == {
        ("b.png", before["b.png"][0], "Q"),
        ("s1.svs@0_896", before["s1.svs@0_896"][0], None),
    }
    assert _content(archive) == before


def test_another_encoder_or_setting_is_refused(archive, make_bundle, make_rows, tmp_path):
    stranger = make_bundle(tmp_path / "stranger", seed=9)
    create_archive(tmp_path / "a", stranger, patch_px=224, mpp=0.5)
    with pytest.raises(ConflictError, match=r"is of the encoder .* reencode"):
        merge_archives(archive, [Other(tmp_path / "a")])
    bundle = open_archive(archive).bundle()
    create_archive(tmp_path / "b", bundle, patch_px=112, mpp=0.5)
    with pytest.raises(ConflictError, match=r"patch_px 112 \(here 224\)"):
        merge_archives(archive, [Other(tmp_path / "b")])


def test_a_slide_of_two_shards_is_one_source(tmp_path, bundle, make_rows, archive):
    other = tmp_path / "other"
    create_like(other, open_archive(archive))
    rows = make_rows(bundle, images=[], slides=["long.svs"], tiles=8)
    with ArchiveWriter(other) as writer:
        for part in np.array_split(np.arange(8), 2):
            writer.add(rows.take(part))
            writer.flush()
        writer.publish()
    assert len(open_archive(other).shards) == 2
    done = merge_archives(archive, [Other(other), Other(other)])
    assert (done.rows, done.sources, done.duplicates) == (8, 1, 8)
    assert verify_archive(archive) == []


def test_nothing_is_told_of_rows_that_were_not_taken(site, archive):
    one = site("one", seed=7, images=["x.png"], slides=[])
    two = site("two", seed=7, images=["x.png"], slides=[])
    relabel_patches(one, {"x.png": Correction("B", "ann", None)})
    relabel_patches(two, {"x.png": Correction(None, "bob", None)})
    done = merge_archives(archive, [Other(one), Other(two)])
    assert (done.rows, len(done.conflicts)) == (1, 1)
    assert [event.by for event in label_history(archive)] == ["ann"]
    assert verify_archive(archive) == []


def test_who_relabelled_what_comes_along_with_its_rows(site, archive, bundle, make_rows):
    other = site("other", seed=7, images=["x.png", "y.png"], slides=["u1"])
    relabel_patches(other, {"x.png": Correction("NEW", "ann", "seen again")})
    compact(other)
    rename_class(other, "A", "Z")
    relabel_patches(other, {"y.png": Correction("A", "bob", None)})
    ours = len(list(label_history(archive)))
    merge_archives(archive, [Other(other, "S")])
    told = list(label_history(archive))[: -ours or None]
    assert [(e.id, e.new, e.by, e.reason) for e in told] == [
        ("S/y.png", "A", "bob", None),
        (None, "Z", None, None),
        ("S/x.png", "NEW", "ann", "seen again"),
    ]
    assert verify_archive(archive) == []

    # Of what comes later, what is new; a patch that was here keeps its label, and its history.
    relabel_patches(other, {"y.png": Correction("B", "carl", None)})
    with ArchiveWriter(other) as writer:
        writer.add(make_rows(bundle, seed=8, images=["z.png"], slides=[]))
        writer.publish()
    relabel_patches(other, {"z.png": Correction("C", "dora", None)})
    again = merge_archives(archive, [Other(other, "S")])
    assert (again.rows, len(again.conflicts)) == (1, 1)
    assert len(list(label_history(archive))) == ours + 4
    assert next(label_history(archive)).by == "dora"
    assert verify_archive(archive) == []
