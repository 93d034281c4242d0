"""What small files say of an archive is what opening it would count."""

from __future__ import annotations

import json

import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.counting import count
from patchknn.archive.index.names import segments_folder
from patchknn.archive.index.update import update_index
from patchknn.archive.overview import look_at
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.sealed import sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import DamageError, InputError


@pytest.fixture
def worn(archive, bundle, make_rows):
    """Several snapshots, indexed at different times."""
    update_index(archive)
    remove_rows(archive, Choice(slides=["s1.svs"]))
    relabel_patches(archive, {"a.png": Correction("NEW")})
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, seed=4, images=["x.png"], slides=["x.svs"]))
        writer.publish()
    update_index(archive)
    compact(archive)
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, seed=5, images=["y.png"], slides=[]))
        writer.publish()
    return archive


def _assert_as_opened(path, at=None):
    found, snapshot = look_at(path, at), open_archive(path, at)
    cover = snapshot.cover
    assert found.manifest == snapshot.manifest
    assert found.settings == snapshot.settings
    assert found.totals == count(snapshot)
    assert found.can_embed == snapshot.bundle().has_backbone
    assert found.encoder["hash_method"] == snapshot.bundle().description.hash_method
    rows = sum(segment.n_rows for segment in cover.segments)
    assert found.indexed == (len(cover.segments), rows, cover.problems)


def test_every_snapshot_is_as_it_would_be_opened(worn):
    for number in range(open_archive(worn).number + 1):
        _assert_as_opened(worn, number)
    update_index(worn)
    _assert_as_opened(worn)


@pytest.mark.parametrize(
    "file", ["segment.json", "shards.bin", "shard_sizes.bin", "codes.bin", "source_name_checks.bin"]
)
@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_a_damaged_segment_counts_as_little_as_it_serves(worn, file, harm):
    update_index(worn, rebuild=True)
    (folder,) = (f for f in segments_folder(worn).iterdir() if f.is_dir())
    data = (folder / file).read_bytes()
    (folder / file).unlink()
    if harm != "gone":
        changed = data[:-8] if harm == "cut" else bytes([data[0] ^ 1]) + data[1:]
        (folder / file).write_bytes(changed)
    if harm == "changed" and file in {"codes.bin", "source_name_checks.bin"}:
        _assert_as_opened(worn)  # what is in them is looked at as it is used
        return
    found, cover = look_at(worn).indexed, open_archive(worn).cover
    assert (found.segments, found.rows) == (0, 0)
    assert cover.segments == ()
    assert len(found.problems) == len(cover.problems) == 1


def test_an_earlier_version_is_counted(worn):
    file = worn / "manifests" / "00000002.json"
    value = json.loads(file.read_text())
    assert value.pop("totals") is not None
    file.write_bytes(sealed_text({name: v for name, v in value.items() if name != "checksum"}))
    assert look_at(worn, 2).totals == count(open_archive(worn, 2))


def test_errors_are_those_of_opening(worn, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        look_at(tmp_path / "absent")
    with pytest.raises(InputError, match="has no snapshot 99"):
        look_at(worn, 99)
    description = worn / "encoder" / "encoder.json"
    description.write_text(description.read_text().replace('"itq"', '"sign"'))
    with pytest.raises(DamageError, match="does not match its fingerprint"):
        look_at(worn)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["arrays"]["shards"].update(shape=[5]),
        lambda v: v["arrays"]["shards"].update(shape=[10**13, "a"]),
        lambda v: v["arrays"]["codes"].update(dtype=""),
        lambda v: v["arrays"]["codes"].update(shape=[-1]),
        lambda v: v.update(rows=10**40),
        lambda v: v.update(rows=-1),
    ],
)
def test_a_segment_that_says_what_cannot_be_is_passed_over(archive, change):
    update_index(archive)
    (file,) = segments_folder(archive).glob("*/segment.json")
    value = json.loads(file.read_bytes())
    del value["checksum"]
    change(value)
    file.write_bytes(sealed_text(value))
    found = look_at(archive)
    assert found.indexed[:2] == (0, 0)
    assert len(found.indexed.problems) == 1
    update_index(archive)
    assert look_at(archive).indexed == (1, 24, ())
