"""``archive import`` and ``archive export``: round trips lose nothing, and codes to exit with."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from patchknn.archive.compact import compact
from patchknn.archive.create import create_archive
from patchknn.archive.listing import list_rows
from patchknn.archive.runs import read_run
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.tables import read_table


@pytest.fixture
def archive(tmp_path, helpers):
    """24 rows of slides and plain images, labelled, in two shards."""
    bundle = helpers.build_bundle(tmp_path / "encoder")
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    for container, names in (("zarr", "ab"), ("hdf5", "cd")):
        images, slides = ([f"{n}.{suffix}" for n in names] for suffix in ("png", "svs"))
        with ArchiveWriter(path, format=container) as writer:
            writer.add(helpers.build_rows(bundle, images=images, slides=slides, seed=ord(names[0])))
            writer.publish()
    return path


def rows_of(archive):
    """Everything that a row has but its code and path, by id."""
    snapshot = open_archive(archive)
    found = {}
    for row in list_rows(snapshot):
        shard, local = snapshot.shard_of(row.row)
        values = (row.source, row.x, row.y, row.label, row.patient, row.mpp)
        found[row.id] = (*values, shard.features[local].tobytes())
    return found


def _object(result):
    return json.loads(result.out)


def slide(path, n=6, seed=0, dim=12, **said):
    features = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = np.stack([512 * np.arange(n), np.zeros(n, int)], axis=1)
        attributes = {"patch_size": 256, "level0_magnification": 40, "target_magnification": 20}
        file["coords"].attrs.update({**attributes, **said})
    return features


def test_an_archive_as_trident_files_and_back(patchknn, archive, tmp_path):
    result = patchknn("archive", "export", archive, tmp_path / "files", "--to", "trident")
    assert result.code == 0
    summary = _object(result)
    assert (summary["rows"], summary["sources"], summary["files"]) == (24, 8, 9)
    result = patchknn("archive", "import", tmp_path / "back", tmp_path / "files", "--bits", "24")
    assert (result.code, result.err) == (0, "")
    expected = {"rows": 24, "sources": 8, "skipped": 0, "failed": 0, "snapshot": 1}
    assert expected.items() <= _object(result).items()
    assert rows_of(tmp_path / "back") == rows_of(archive)
    before, after = (open_archive(path).settings for path in (archive, tmp_path / "back"))
    for name in ("feature_dim", "feature_dtype", "patch_px", "mpp"):
        assert getattr(before, name) == getattr(after, name)
    again = patchknn("archive", "export", tmp_path / "back", tmp_path / "files2", "--to", "trident")
    assert again.code == 0
    for path in (tmp_path / "files").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "files2" / path.name).read_bytes()
    skipped = patchknn("archive", "import", tmp_path / "back", tmp_path / "files2")
    assert (_object(skipped)["skipped"], skipped.code) == (8, 0)


def test_attributes_of_trident_come_back(patchknn, tmp_path):
    said = {"overlap": 32, "level0_magnification": 40, "patch_size_level0": 512, "encoder": "uni"}
    own = {"s": {"level0_width": 9000, "level0_height": 7000}, "t": {"level0_width": 100}}
    for name, more in own.items():
        slide(tmp_path / f"{name}.h5", **said, **more)
    files = [tmp_path / f"{name}.h5" for name in own]
    assert patchknn("archive", "import", tmp_path / "a", *files).code == 0
    compact(tmp_path / "a")
    patchknn("archive", "export", tmp_path / "a", tmp_path / "out", "--to", "trident")
    for name, more in own.items():
        with h5py.File(tmp_path / f"out/{name}.h5") as file:
            attributes = {**file["features"].attrs, **file["coords"].attrs}
        wanted = {**said, **more, "patch_size": 256, "target_magnification": 20, "name": name}
        found = {k: v for k, v in attributes.items() if k in wanted or k.startswith("level0_w")}
        assert found == wanted
        assert all(isinstance(found[key], np.integer) for key in wanted if key.endswith("tion"))


def test_labels_of_one_archive_serve_an_import(patchknn, archive, tmp_path):
    patchknn("archive", "export", archive, tmp_path / "files", "--to", "trident")
    for path in (tmp_path / "files").glob("*.h5"):
        with h5py.File(path, "a") as file:
            if "label" in file:
                del file["label"]
    listed = patchknn("archive", "list", archive, "--format", "tsv").out
    (tmp_path / "rows.tsv").write_text(listed, encoding="utf-8")
    files = (tmp_path / "back", tmp_path / "files")
    result = patchknn("archive", "import", *files, "--labels", tmp_path / "rows.tsv")
    assert (result.code, _object(result)["unmatched_labels"]) == (0, 0)
    assert rows_of(tmp_path / "back") == rows_of(archive)


def test_exit_codes_of_import(patchknn, tmp_path):
    slide(tmp_path / "a.h5")
    slide(tmp_path / "wide.h5", dim=13)
    (tmp_path / "bad.h5").write_text("x")
    archive = tmp_path / "archive"
    result = patchknn("archive", "import", archive, tmp_path / "bad.h5")
    assert (result.code, result.out, archive.exists()) == (1, "", False)
    assert "There are no features to import: " in result.err
    files = [tmp_path / f"{name}.h5" for name in ("a", "wide", "bad")]
    dry = patchknn("archive", "import", archive, *files, "--dry-run")
    assert (dry.code, _object(dry)["rows"], archive.exists()) == (3, 6, False)
    result = patchknn("archive", "import", archive, *files, "--seed", "3")
    assert (result.code, len(result.err.splitlines())) == (3, 2)
    assert _object(result)["failed"] == 2
    record = read_run(archive, open_archive(archive).manifest.run_id)
    assert (record["settings"]["seed"], record["counts"]["rows"]) == (3, 6)
    assert patchknn("archive", "import", archive, tmp_path / "bad.h5").code == 1
    assert patchknn("archive", "import", archive, tmp_path / "a.h5").code == 0
    assert open_archive(archive).number == 1
    assert len(list((archive / "runs").iterdir())) == 1  # what came to nothing leaves no record
    log = patchknn("archive", "log", archive, "--format", "ndjson").out
    assert json.loads(log.splitlines()[0])["action"] == "import"
    assert patchknn("archive", "import", archive).code == 2
    text = patchknn("archive", "import", archive, archive).err
    assert "is an archive: use 'patchknn archive merge'" in text


def test_an_imported_archive_answers_queries_of_features(patchknn, tmp_path):
    features = slide(tmp_path / "a.h5", 40)
    patchknn("archive", "import", tmp_path / "archive", tmp_path / "a.h5", "--bits", "16")
    np.save(tmp_path / "q.npy", features[7:8])
    result = patchknn("query", tmp_path / "archive", tmp_path / "q.npy", "--k", "1")
    assert result.code == 0
    assert _object(result)["neighbours"][0]["id"] == "a@3584_0"
    Image.new("RGB", (32, 32)).save(tmp_path / "q.png")
    image = patchknn("query", tmp_path / "archive", tmp_path / "q.png")
    assert image.code == 1
    assert "no backbone" in image.err


def test_export_options(patchknn, archive, tmp_path):
    out = tmp_path / "out.parquet"
    export = ("archive", "export", archive, out, "--to")
    dry = patchknn(*export, "parquet", "--label", "A", "--dry-run")
    assert (dry.code, _object(dry)["rows"], out.exists()) == (0, 8, False)
    key = tmp_path / "key"
    patchknn(*export, "parquet", "--deidentify", key, "--dry-run")
    assert not key.exists()
    result = patchknn(*export, "parquet", "--slide", "a.svs", "--slide", "gone")
    assert (result.code, _object(result)["missing"]) == (3, 1)
    assert "gone: " in result.err
    again = patchknn(*export, "parquet", "--slide", "a.svs", "--slide", "gone", "--ignore-missing")
    assert (again.code, f"{out} is this export already." in again.err) == (0, True)
    other = patchknn(*export, "parquet")
    assert other.code == 1
    assert "choose another OUT, or delete it." in other.err
    assert patchknn(*export, "parquet", "--no-backbone").code == 2
    assert patchknn("archive", "export", archive, out).code == 2
    old = patchknn("archive", "export", archive, tmp_path / "o", "--to", "archive", "--at", "1")
    assert _object(old)["rows"] == 12


def test_deidentify_keeps_the_names_of_one_key(patchknn, archive, tmp_path):
    key = tmp_path / "key"
    for name, to in (("a.parquet", "parquet"), ("b", "archive"), ("c", "trident")):
        arguments = ("archive", "export", archive, tmp_path / name, "--to", to)
        result = patchknn(*arguments, "--deidentify", key)
        assert (result.code, result.err) == (0, "")
        assert _object(result)["deidentified"] is True
    listed = {row.id for row in list_rows(open_archive(tmp_path / "b"))}
    assert listed == {row["id"] for row in read_table(tmp_path / "a.parquet").rows}
    back = patchknn("archive", "import", tmp_path / "d", tmp_path / "c")
    assert back.code == 0
    assert {row.id for row in list_rows(open_archive(tmp_path / "d"))} == listed
    assert read_run(tmp_path / "b", open_archive(tmp_path / "b").manifest.run_id)["argv"][-1] == (
        "--deidentify"
    )
    key.chmod(0o640)
    arguments = ("archive", "export", archive, tmp_path / "e", "--to", "archive")
    assert f"{key} may be read by others" in patchknn(*arguments, "--deidentify", key).err
