"""``patchknn archive`` on small archives."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.snapshot import open_archive
from patchknn.tables import read_table


def _objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_info_counts_rows_sources_patients_and_classes(patchknn, archive):
    (value,) = _objects(patchknn("archive", "info", archive, "--format", "ndjson").out)
    assert value["rows"] == 24
    assert value["sources"] == 8
    assert value["patients"] == 2
    assert value["classes"] == {"A": 8, "B": 8}
    assert value["unlabelled"] == 8
    assert (value["bits"], value["feature_dim"]) == (16, 12)
    assert (value["patch_px"], value["mpp"]) == (224, 0.5)
    assert value["formats"] == {"zarr": 1, "hdf5": 1}
    assert value["encoder"] == open_archive(archive).settings.encoder_fingerprint
    zarr_files = [file for file in archive.glob("shards/*.zarr/**/*") if file.is_file()]
    files = [*zarr_files, *archive.glob("shards/*.h5")]
    assert value["bytes"] == sum(file.stat().st_size for file in files)
    table = patchknn("archive", "info", archive, "--format", "table").out
    assert "A 8, B 8" in table
    tsv = patchknn("archive", "info", archive, "--format", "tsv").out
    assert "rows\t24\n" in tsv


def test_list_as_tsv_is_a_manifest(patchknn, archive, tmp_path):
    result = patchknn("archive", "list", archive, "--format", "tsv")
    assert result.code == 0
    file = tmp_path / "rows.tsv"
    file.write_text(result.out, encoding="utf-8")
    table = read_table(file, required=("path", "label", "x", "y", "mpp", "name", "patient"))
    snapshot = open_archive(archive)
    assert len(table.rows) == 24
    for number, line in enumerate(table.rows):
        row = snapshot.row(number)
        position = (None, None) if row.x < 0 else (str(row.x), str(row.y))
        assert (line["x"], line["y"]) == position
        assert line["mpp"] == (None if row.x < 0 else "0.25")
        assert (line["path"], line["name"], line["label"]) == (
            f"/data/{row.source}",
            row.source,
            row.label,
        )
        assert (line["patient"], line["id"], line["code"]) == (row.patient, row.id, row.code.hex())


def test_list_as_ndjson_and_its_filters(patchknn, archive):
    rows = _objects(patchknn("archive", "list", archive).out)
    assert len(rows) == 24
    assert {row["label"] for row in rows} == {"A", "B", None}
    assert patchknn("archive", "list", archive, "--limit", 0).out == ""
    assert len(_objects(patchknn("archive", "list", archive, "--limit", 3).out)) == 3
    kept = _objects(
        patchknn(
            "archive", "list", archive, "--label", "A", "--source", "c.svs", "--source", "a.svs"
        ).out
    )
    assert kept == [r for r in rows if r["label"] == "A" and r["source"] in {"a.svs", "c.svs"}]
    assert kept
    plain = _objects(patchknn("archive", "list", archive, "--source", "b.png").out)
    assert [(r["id"], r["x"], r["y"], r["patient"]) for r in plain] == [("b.png", -1, -1, None)]


def test_list_filters_that_name_nothing(patchknn, archive):
    result = patchknn("archive", "list", archive, "--label", "a")
    assert (result.code, result.out) == (2, "")
    assert "has no such class; it has A, B." in result.err
    result = patchknn("archive", "list", archive, "--source", "zz")
    assert result.code == 2
    assert "--source zz" in result.err


def test_log_tells_what_was_added_and_by_which_command(patchknn, archive):
    entries = _objects(patchknn("archive", "log", archive).out)
    assert [entry["number"] for entry in entries] == [2, 1, 0]
    assert [entry["rows_added"] for entry in entries] == [12, 12, 0]
    assert [entry["run"] for entry in entries] == ["r2", "r1", None]
    assert entries[0]["command"] == "patchknn embed 'c d'"
    assert entries[1]["command"] is None
    assert len(_objects(patchknn("archive", "log", archive, "--limit", 1).out)) == 1
    table = patchknn("archive", "log", archive, "--format", "table").out
    assert "+12" in table
    assert "patchknn embed 'c d'" in " ".join(table.split())


@pytest.mark.parametrize("style", ["table", "tsv", "ndjson"])
def test_verify_says_whole_or_names_each_file(patchknn, archive, style):
    whole = patchknn("archive", "verify", archive, "--format", style)
    assert whole.code == 0
    assert whole.out in {"", "file\tproblem\n"}
    assert "24 rows in 2 shards, 3 snapshots" in whole.err
    places = [shard.description.arrays["features"] for shard in open_archive(archive).shards]
    for place in places:
        file = archive / "shards" / place.file
        data = bytearray(file.read_bytes())
        data[place.offset] ^= 1
        file.write_bytes(data)
    damaged = patchknn("archive", "verify", archive, "--format", style)
    assert damaged.code == 1
    lines = damaged.out.splitlines()[style == "tsv" :]
    named = [line for line in lines if "features do not match their checksum" in line]
    assert len(named) == 2
    assert all(place.file in line for place, line in zip(places, named, strict=True))
    assert f"things are wrong in {archive}" in damaged.err


@pytest.mark.parametrize("command", ["info", "list", "log", "verify"])
def test_each_command_on_what_is_no_archive(patchknn, tmp_path, command):
    for path, sentence in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "is not a patchknn archive"),
    ):
        result = patchknn("archive", command, path)
        assert (result.code, result.out) == (1, "")
        assert sentence in result.err
        assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["info", "list", "log", "verify"])
def test_each_command_on_an_empty_archive(patchknn, helpers, tmp_path, command):
    bundle = helpers.build_bundle(tmp_path / "encoder")
    create_archive(tmp_path / "new", bundle, patch_px=64, mpp=None)
    for style in ("table", "tsv", "ndjson"):
        assert patchknn("archive", command, tmp_path / "new", "--format", style).code == 0


def test_a_damaged_shard_ends_list_with_one_sentence_that_names_it(patchknn, archive):
    place = open_archive(archive).shards[1].description.arrays["features"]
    os.truncate(archive / "shards" / place.file, 100)
    result = patchknn("archive", "list", archive)
    assert (result.code, result.out) == (1, "")
    assert place.file in result.err
    assert "patchknn archive verify" in result.err
    assert len(result.err.splitlines()) == 1


def test_none_of_the_commands_imports_what_is_heavy(archive):
    program = f"""
import sys
from patchknn.cli.main import run
for command in ("info", "list", "log", "verify"):
    assert run(["archive", command, {str(archive)!r}, "--format", "ndjson"]) == 0
heavy = {{"torch", "zarr", "h5py", "rich", "duckdb", "timm", "PIL", "skimage", "sklearn", "scipy"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines()[-1] == "[]"


def test_the_commands_themselves_import_typer_and_the_standard_library_only():
    program = """
import sys, patchknn.cli.archive
print(sorted({"numpy", "rich", "torch", "patchknn.archive"} & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.stdout.strip() == "[]", finished.stderr


def test_a_list_goes_back_through_the_readers_of_manifests(patchknn, archive, tmp_path):
    from patchknn.datasets.manifests import read_manifest

    file = tmp_path / "rows.tsv"
    file.write_text(patchknn("archive", "list", archive, "--format", "tsv").out, encoding="utf-8")
    snapshot = open_archive(archive)
    for number, line in enumerate(read_manifest(file)):
        row = snapshot.row(number)
        assert str(line.path) == row.path
        assert (line.name, line.label, line.patient) == (row.source, row.label, row.patient)
        position = (None, None) if row.x < 0 else (row.x, row.y)
        assert (line.x, line.y) == position
        assert line.mpp == row.mpp
    assert number == snapshot.n_rows - 1


def test_index_says_what_it_did(patchknn, archive):
    (info,) = _objects(patchknn("archive", "info", archive).out)
    assert (info["indexed"], info["segments"]) == (0, 0)
    (first,) = _objects(patchknn("archive", "index", archive).out)
    assert {k: first[k] for k in ("segments", "rows", "built", "indexed", "added", "removed")} == {
        "segments": 1, "rows": 24, "built": 1, "indexed": 24, "added": 24, "removed": 0,
    }  # fmt: skip
    (info,) = _objects(patchknn("archive", "info", archive).out)
    assert (info["indexed"], info["segments"]) == (24, 1)
    (second,) = _objects(patchknn("archive", "index", archive).out)
    assert (second["built"], second["rows"]) == (0, 24)
    (third,) = _objects(patchknn("archive", "index", archive, "--rebuild").out)
    assert (third["built"], third["indexed"], third["added"]) == (1, 24, 0)
    assert "segments" in patchknn("archive", "index", archive, "--format", "tsv").out
    assert patchknn("archive", "index", archive / "none").code == 1


def test_a_damaged_index_is_found_and_mended(patchknn, archive):
    patchknn("archive", "index", archive)
    (file,) = archive.glob("index/segments/*/codes.bin")
    file.write_bytes(bytes(len(file.read_bytes())))
    result = patchknn("archive", "verify", archive)
    (finding,) = _objects(result.out)
    assert finding["file"] == file.relative_to(archive).as_posix()
    assert result.code == 1
    remedy = f"patchknn archive index {archive} --rebuild"
    assert f"its rows are whole: run '{remedy}'." in result.err
    assert remedy in finding["problem"]
    file.write_bytes(b"")
    result = patchknn("archive", "index", archive)
    assert (result.code, _objects(result.out)[0]["built"]) == (0, 1)
    assert result.err == ""
    assert patchknn("archive", "verify", archive).code == 0
