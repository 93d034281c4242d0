"""After repair an archive is whole: what could be had is there, what could not is named."""

from __future__ import annotations

import pytest

from patchknn.archive import repair as repair_module
from patchknn.archive.choice import Choice
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.repair import repair
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.errors import PatchknnError


def _content(path):
    snapshot = open_archive(path)
    found = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        found[row.id] = (row.label, row.code, shard.features[local].tobytes())
    return found


def _flip(file, offset=0):
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


@pytest.fixture
def changed(archive):
    """An archive of a Zarr and an HDF5 shard with a removal and a relabelling."""
    remove_rows(archive, Choice(ids=["s1.svs@0_896", "t1@0_896"]))
    relabel_patches(archive, {"s2.svs@0_1344": Correction("NEW"), "t2@0_1344": Correction("NEW")})
    return archive


def _file(path, shard, array):
    place = open_archive(path).shards[shard].description.arrays[array]
    return path / "shards" / place.file, place.offset


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("array", ["codes", "features", "label", "coords", "source_name_bytes"])
def test_an_array_that_changed(changed, shard, array):
    before = _content(changed)
    snapshot = open_archive(changed)
    span = range(12 * shard, 12 * shard + 12)
    own = {row.id for row in list_rows(snapshot) if row.row in span}
    _flip(*_file(changed, shard, array))
    assert verify_archive(changed)
    done = repair(changed)
    assert verify_archive(changed) == []
    lost = {one.id for one in done.lost}
    if array == "codes":  # they follow from the features
        assert (lost, len(done.rewritten)) == (set(), 1)
        assert _content(changed) == before
    else:
        named = array in {"features", "label"}
        assert lost == (own if named else {None})
        assert sum(one.rows for one in done.lost) == len(own)
        assert _content(changed) == {i: v for i, v in before.items() if i not in own}
    assert any(name.startswith("shards/") for name in done.aside)
    assert all((next((changed / "damaged").iterdir()) / name).exists() for name in done.aside)


def test_a_file_that_is_gone_or_cut(changed):
    before = _content(changed)
    file, _ = _file(changed, 0, "codes")
    file.unlink()
    assert repair(changed).lost == ()
    assert _content(changed) == before
    file, _ = _file(changed, 0, "features")
    file.write_bytes(file.read_bytes()[:100])
    done = repair(changed)
    assert len(done.lost) == sum(one.rows for one in done.lost) == 11
    assert verify_archive(changed) == []


def test_the_json_of_a_shard(changed):
    shard = open_archive(changed).shards[1]
    _flip(changed / "shards" / f"{shard.uuid}.json", 300)
    done = repair(changed)
    assert [(one.id, one.rows) for one in done.lost] == [(None, 11)]
    assert verify_archive(changed) == []
    assert len(open_archive(changed)) == 11


def test_the_newest_manifest(changed):
    _flip(changed / "manifests" / "00000004.json", 100)
    done = repair(changed)
    assert done.number == 4
    assert verify_archive(changed) == []
    labels = {row.label for row in list_rows(open_archive(changed))}
    assert "NEW" not in labels  # the last snapshot that can be read is that before
    assert len(open_archive(changed)) == 22


@pytest.mark.parametrize("kind", ["remove", "relabel"])
def test_a_change_that_is_lost_is_said(changed, kind):
    (entry,) = [e for e in open_archive(changed).manifest.changes if e.kind == kind]
    _flip(changed / "changes" / f"{entry.uuid}.bin")
    done = repair(changed)
    assert done.undone == (f"a {kind} of 2 rows",)
    assert verify_archive(changed) == []
    assert len(open_archive(changed)) == (24 if kind == "remove" else 22)


def test_what_is_whole_is_left_alone(changed):
    update_index(changed)
    before = open_archive(changed).number
    done = repair(changed)
    assert done == ((), (), (), (), None)
    assert open_archive(changed).number == before


def test_a_run_record_and_an_earlier_shard(changed):
    (changed / "runs" / "r1.json").write_text("{")
    done = repair(changed)
    assert (done.aside, done.number) == (("runs/r1.json",), None)
    assert verify_archive(changed) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_repair_that_cannot_go_on_leaves_no_shard(changed, monkeypatch, error):
    usual, calls = repair_module.write_shard, []

    def write(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return usual(*arguments, **options)

    _flip(*_file(changed, 0, "codes"))
    before = sorted(changed.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(repair_module, "write_shard", write)
        with pytest.raises(type(error)):
            repair(changed)
    assert len(calls) == 2
    assert sorted(changed.rglob("*")) == before
    repair(changed)
    assert verify_archive(changed) == []


@pytest.mark.parametrize(
    "file", ["archive.json", "encoder/encoder.json", "encoder/heads.safetensors"]
)
def test_what_must_come_from_a_copy(changed, file):
    _flip(changed / file, 40)
    with pytest.raises(PatchknnError, match=file.split(".")[0].split("/")[0]):
        repair(changed)
    assert not (changed / "damaged").exists()
