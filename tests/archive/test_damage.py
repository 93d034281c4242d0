"""Structural damage is noticed on opening and named; silent flips are found by verify."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress

import numpy as np
import pytest

from patchknn.archive.index.update import update_index
from patchknn.archive.sealed import sealed, sealed_text
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import DamageError, InputError
from patchknn.hamming.scan import scan_rows


def _use(path):
    """Everything that a query touches."""
    snapshot = open_archive(path)
    snapshot.bundle()
    for row in range(snapshot.n_rows):
        snapshot.locate(snapshot.row(row).id)
    for shard in snapshot.shards:
        scan_rows(shard.codes, shard.codes[:1], 2)
        shard.features.astype(np.float64).sum()


def _shard_file(path, number, array):
    shard = open_archive(path).shards[number]
    place = shard.description.arrays[array]
    return path / "shards" / place.file, place.offset


def _reseal(path, number, change):
    """Edit a shard's JSON as a hostile author would: with every checksum right."""
    uuid = open_archive(path).shards[number].uuid
    file = path / "shards" / f"{uuid}.json"
    value = json.loads(file.read_bytes())
    change(value)
    file.write_bytes(sealed_text(value))
    manifest_file = path / "manifests" / "00000002.json"
    manifest = json.loads(manifest_file.read_bytes())
    manifest["shards"]["checksum"][number] = sealed(value)["checksum"]
    manifest_file.write_bytes(sealed_text(manifest))
    return file


@pytest.mark.parametrize("nonce", ["", "\ud800", "f" * 31, 5])
def test_a_nonce_that_decides_nothing_is_refused(archive, nonce):
    file = archive / "manifests" / "00000002.json"
    value = json.loads(file.read_bytes())
    del value["checksum"]
    file.write_bytes(sealed_text({**value, "nonce": nonce}))
    with pytest.raises(DamageError, match="00000002"):
        open_archive(archive)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("how", ["delete", "truncate", "grow", "link", "folder"])
def test_a_missing_or_resized_file_is_named_on_opening(archive, number, how):
    file, _ = _shard_file(archive, number, "features")
    if how == "truncate":
        os.truncate(file, file.stat().st_size - 1)
    elif how == "grow":
        file.write_bytes(file.read_bytes() + b"\0")
    elif how == "link":
        shutil.copy(file, archive / "elsewhere")
        file.unlink()
        file.symlink_to(archive / "elsewhere")
    else:
        file.unlink()
        if how == "folder":
            file.mkdir()
    with pytest.raises(DamageError) as error:
        open_archive(archive)
    assert str(file) in str(error.value)
    assert f"patchknn archive verify {archive}" in str(error.value)
    findings = verify_archive(archive)
    assert [f.file for f in findings] == [file.relative_to(archive).as_posix()]


@pytest.mark.parametrize("victim", ["archive.json", "manifests/00000002.json", "shard json"])
@pytest.mark.parametrize("how", ["flip", "empty", "cut", "text", "list", "edit", "delete"])
def test_damaged_small_files_are_named_on_opening(archive, victim, how):
    if victim == "shard json":
        victim = f"shards/{open_archive(archive).shards[1].uuid}.json"
    file = archive / victim
    data = bytearray(file.read_bytes())
    if how == "flip":
        position = data.index(b'"rows"' if b'"rows"' in data else b"224") + 2
        data[position] ^= 1
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "edit":
        data = bytearray(data.replace(b'"classes": []', b"").replace(b"12", b"13", 1))
    else:
        data = bytearray({"empty": b"", "text": b"hello", "list": b"[1]"}.get(how, b""))
    file.write_bytes(data)
    if how == "delete":
        file.unlink()
    expected = InputError if (victim, how) == ("archive.json", "delete") else DamageError
    with pytest.raises(expected) as error:
        open_archive(archive)
    assert "archive.json" in str(error.value) or str(file) in str(error.value)


def test_a_lost_manifest_in_the_middle_is_found(archive, bundle, make_rows):
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle, images=["n.png"], slides=[]))
        writer.publish()
    (archive / "manifests" / "00000002.json").unlink()
    (finding,) = verify_archive(archive)
    assert "2, is missing" in finding.sentence
    with pytest.raises(InputError, match="no snapshot 2"):
        open_archive(archive, at=2)


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("outside the shard", lambda v: v["files"][0].update(file="../../etc/passwd")),
        ("outside the shard", lambda v: v["files"][0].update(file="/etc/passwd")),
        ("no file of the shard", lambda v: v["arrays"]["codes"].update(file="../archive.json")),
        ("features is <f2", lambda v: v["arrays"]["features"].update(shape=[1 << 60, 12])),
        ("rows of 4 sources", lambda v: v.update(rows=0)),
        ("disagree on its rows", lambda v: v.update(new_sources=1)),
        ("features is |O", lambda v: v["arrays"]["features"].update(dtype="|O")),
        ("entry", lambda v: v["arrays"]["features"].update(dtype="garbage")),
        ("beyond the end", lambda v: v["arrays"]["codes"].update(offset=1 << 40)),
        ("beyond the end", lambda v: v["arrays"]["source_name_bytes"].update(shape=[1 << 62])),
        ("entry", lambda v: v["arrays"]["codes"].update(offset=-4096)),
        ("entry", lambda v: v["arrays"].update(codes=[])),
        ("coords is missing", lambda v: v["arrays"].pop("coords")),
        ("entry", lambda v: v["arrays"]["codes"].update(dtype="f4,(")),
        ("another shard", lambda v: v.update(uuid="0" * 32)),
        ("unknown container", lambda v: v.update(container="pickle")),
        ("does not say that it is a patchknn-shard", lambda v: v.pop("format")),
        ("entry", lambda v: v.update(classes=[1])),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_description_that_cannot_be_is_refused(archive, number, sentence, change):
    file = _reseal(archive, number, change)
    with pytest.raises(DamageError) as error:
        open_archive(archive)
    assert sentence in str(error.value)
    assert str(file) in str(error.value)


def test_newer_formats_are_refused_with_a_sentence(archive):
    _reseal(archive, 0, lambda v: v.update(format_version=99))
    with pytest.raises(InputError, match="format 99"):
        open_archive(archive)
    for name in ("manifests/00000002.json", "archive.json"):
        value = json.loads((archive / name).read_bytes())
        (archive / name).write_bytes(sealed_text({**value, "format_version": 7}))
        with pytest.raises(InputError, match="format 7"):
            open_archive(archive)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "array",
    [
        "features",
        "codes",
        "coords",
        "source",
        "label",
        "source_key",
        "source_name_bytes",
        "source_name_offsets",
        "source_path_offsets",
        "source_quickhash",
        "source_mpp",
    ],
)
def test_a_flipped_bit_is_found_by_verify(archive, number, array):
    file, offset = _shard_file(archive, number, array)
    data = bytearray(file.read_bytes())
    data[offset + 1] ^= 0x40
    file.write_bytes(data)
    findings = verify_archive(archive)
    assert findings[0].file == file.relative_to(archive).as_posix()
    assert findings[0].sentence == f"The bytes of {array} do not match their checksum."
    with suppress(DamageError):  # harmless, or said in a sentence
        _use(archive)


def test_bits_flipped_anywhere_are_found_and_nothing_crashes(archive):
    generator = np.random.default_rng(0)
    files = [f for f in sorted(archive.rglob("*")) if f.is_file() and f.stat().st_size]
    for _ in range(60):
        file = files[generator.integers(len(files))]
        whole = file.read_bytes()
        data = bytearray(whole)
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
        file.write_bytes(data)
        try:
            found = bool(verify_archive(archive))
        except InputError:  # archive.json is no archive's any more
            found = True
        assert found, file
        with suppress(DamageError, InputError):
            _use(archive)
        file.write_bytes(whole)
    assert verify_archive(archive) == []


@pytest.mark.parametrize(
    ("array", "value", "property_name"),
    [
        ("source", 99, "source"),
        ("source", -1, "source"),
        ("label", 2, "labels"),
        ("label", -2, "labels"),
        ("source_name_offsets", 1 << 40, "source_names"),
    ],
)
def test_numbers_out_of_range_are_noticed_in_use(archive, array, value, property_name):
    file, offset = _shard_file(archive, 1, array)
    data = bytearray(file.read_bytes())
    width = 8 if "offsets" in array else 4
    data[offset + width : offset + 2 * width] = value.to_bytes(width, "little", signed=True)
    file.write_bytes(data)
    shard = open_archive(archive).shards[1]
    with pytest.raises(DamageError, match="out of range"):
        getattr(shard, property_name)


def test_codes_that_do_not_belong_are_found_even_with_right_checksums(archive, monkeypatch):
    shard = open_archive(archive).shards[1]
    file, offset = _shard_file(archive, 1, "codes")
    data = bytearray(file.read_bytes())
    data[offset + shard.codes.size - 1] ^= 0xFF
    data[offset] = 0xFF
    file.write_bytes(data)
    from patchknn.archive import verify_shard

    recorded = shard.description.arrays["codes"].checksum
    real = verify_shard.span_checksum
    monkeypatch.setattr(
        verify_shard,
        "span_checksum",
        lambda f, start, n: recorded if start == offset and f == file else real(f, start, n),
    )
    sentences = [finding.sentence for finding in verify_archive(archive)]
    assert "Its rows are not in the order of their codes." in sentences
    assert "2 of its codes are not those of their features." in sentences
    with pytest.raises(DamageError, match="order of their codes"):
        update_index(archive)


def test_a_changed_encoder_is_noticed(archive, make_bundle):
    shutil.rmtree(archive / "encoder")
    make_bundle(archive / "encoder", seed=5)
    with pytest.raises(DamageError, match="not the encoder of the archive"):
        open_archive(archive).bundle()
    (finding,) = verify_archive(archive)
    assert finding.file == "encoder"
    (archive / "encoder" / "heads.safetensors").write_bytes(b"\0" * 10)
    with pytest.raises(DamageError, match=r"heads\.safetensors"):
        open_archive(archive).bundle()


def test_a_folder_that_is_no_archive(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_archive(tmp_path / "absent")
    with pytest.raises(InputError, match="is not a patchknn archive"):
        open_archive(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file")
    with pytest.raises(InputError, match="is not a patchknn archive"):
        open_archive(tmp_path)


def test_a_manifest_of_another_archive_is_refused(archive, tmp_path, bundle):
    from patchknn.archive.create import create_archive

    other = tmp_path / "other"
    create_archive(other, bundle, patch_px=224, mpp=0.5)
    shutil.copy(archive / "manifests" / "00000002.json", other / "manifests" / "00000002.json")
    with pytest.raises(DamageError, match="another archive"):
        open_archive(other)


def test_an_archive_without_the_right_to_write_can_be_used(archive):
    # The suite may run as root, whom modes do not stop: the files' times tell of any write.
    files = [archive, *archive.rglob("*")]
    for file in files:
        file.chmod(0o555 if file.is_dir() else 0o444)
    before = {file: file.stat().st_mtime_ns for file in files}
    try:
        _use(archive)
        assert verify_archive(archive) == []
        assert {file: file.stat().st_mtime_ns for file in [archive, *archive.rglob("*")]} == before
    finally:
        for file in files:
            file.chmod(0o755 if file.is_dir() else 0o644)
