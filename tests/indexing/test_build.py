"""``embed`` as a whole: what is archived, skipped, refused and reported."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.bundle import load_bundle
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide


def test_an_image_folder_becomes_rows_with_labels(embed, image_folder, tmp_path, encoder, rows_of):
    result, summary = embed(image_folder(7))
    assert (result.code, result.err) == (0, "")
    assert {k: summary[k] for k in ("rows", "sources", "skipped", "empty", "failed")} == {
        "rows": 7, "sources": 7, "skipped": 0, "empty": 0, "failed": 0,
    }  # fmt: skip
    snapshot = open_archive(tmp_path / "archive")
    assert summary["manifest"] == snapshot.number == 1
    assert sorted(snapshot.classes) == ["A", "B", "C"]
    assert {row: value[2] for row, value in rows_of().items()} == {
        f"{'ABC'[n % 3]}/{n:03}.png": "ABC"[n % 3] for n in range(7)
    }
    assert snapshot.settings.patch_px == 32
    bundle = load_bundle(encoder)
    for shard in snapshot.shards:
        assert shard.features.dtype == np.float16
        np.testing.assert_array_equal(shard.codes, bundle.codes(np.asarray(shard.features)))
    assert not verify_archive(tmp_path / "archive")


def test_slides_tile_sets_and_manifests_of_patches_give_the_same_rows(
    embed, write_slide, tmp_path, patchknn, rows_of
):
    slide = write_slide("slides/s.tif")
    embed(tmp_path / "slides", archive="a1")
    tiles = tile_slide(slide, TilingSettings(size=32), name="s.tif", patient="P1")
    write_tileset(tmp_path / "tiles" / "s.h5", tiles)
    embed(tmp_path / "tiles", archive="a2")
    manifest = tmp_path / "slides" / "m.csv"
    lines = [f"s.tif,{x},{y}" for x, y in tiles.coords.tolist()]
    manifest.write_text("\n".join(["path,x,y", *lines]) + "\n")
    embed(manifest, archive="a3")
    fly, stored, listed = (rows_of(name) for name in ("a1", "a2", "a3"))
    assert len(fly) == len(tiles) > 20
    assert {key: value[:3] for key, value in fly.items()} == {k: v[:3] for k, v in stored.items()}
    assert fly == listed
    (source,) = open_archive(tmp_path / "a2").sources()
    assert (source.patient, source.mpp) == ("P1", pytest.approx(0.5))
    assert source.path == str(slide)


def test_what_archive_list_prints_can_be_embedded_again(
    embed, write_slide, tmp_path, patchknn, rows_of
):
    write_slide("slides/s.tif")
    embed(tmp_path / "slides")
    listing = patchknn("archive", "list", tmp_path / "archive", "--format", "tsv")
    (tmp_path / "list.tsv").write_text(listing.out)
    result, _ = embed(tmp_path / "list.tsv", archive="again")
    assert result.code == 0, result.err
    assert rows_of("again") == rows_of()


def test_the_same_command_again_does_nothing_and_new_images_are_added(
    embed, image_folder, tmp_path, rows_of
):
    folder = image_folder(6)
    embed(folder)
    before = rows_of()
    _, again = embed(folder)
    assert (again["rows"], again["skipped"], again["manifest"]) == (0, 6, 1)
    image_folder(3, first=6)
    (folder / "A" / "000.png").touch()  # another time, the same content
    _, more = embed(folder)
    assert (more["rows"], more["skipped"], more["manifest"]) == (3, 6, 2)
    after = rows_of()
    assert len(after) == 9
    assert before.items() <= after.items()


def test_a_name_with_another_content_is_refused_and_the_rest_is_done(embed, image_folder, tmp_path):
    folder = image_folder(4)
    embed(folder)
    changed = folder / "A" / "000.png"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(changed)
    image_folder(1, first=4)
    result, summary = embed(folder)
    assert result.code == 3
    assert (summary["rows"], summary["skipped"], summary["failed"]) == (1, 3, 1)
    assert str(changed) in result.err
    assert "'A/000.png'" in result.err
    assert len(result.err.splitlines()) == 1


def test_bad_inputs_are_named_one_line_each_and_the_rest_is_done(
    embed, image_folder, write_slide, tmp_path, rows_of
):
    folder = image_folder(3)
    (folder / "text.png").write_text("this is text")
    (folder / "zero.png").touch()
    (folder / "cut.png").write_bytes((folder / "A" / "000.png").read_bytes()[:500])
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    rgb = Image.fromarray(noise)
    rgb.convert("CMYK").save(folder / "cmyk.tif")
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "rgba.png")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    write_slide("data/blank.tif", tissue=False)
    write_slide("data/nompp.tif", mpp=None)
    write_slide("data/ünï 😐.tif")
    (folder / "broken.svs").write_bytes(b"not a slide")
    result, summary = embed(folder, tmp_path / "missing.png")
    assert result.code == 3
    assert (summary["sources"], summary["empty"], summary["failed"]) == (8, 1, 6)
    lines = result.err.splitlines()
    for name in ("text.png", "zero.png", "cut.png", "nompp.tif", "broken.svs", "missing.png"):
        assert sum(name in line for line in lines) == 1, result.err
    assert len(lines) == 6
    rows = rows_of()
    assert {"cmyk.tif", "palette.png", "rgba.png", "deep.png"} < set(rows)
    assert any(row.startswith("ünï 😐.tif@") for row in rows)
    assert not verify_archive(tmp_path / "archive")
    record = next((tmp_path / "archive" / "runs").glob("*.json"))
    failures = json.loads(record.read_text())["failures"]
    assert len(failures) == 6


def test_nothing_but_bad_inputs_is_an_error(embed, tmp_path):
    (tmp_path / "text.png").write_text("this is text")
    result, summary = embed(tmp_path / "text.png")
    assert result.code == 1
    assert summary["failed"] == 1


def test_another_encoder_or_setting_is_refused(
    embed, image_folder, other_encoder, encoder, tmp_path
):
    folder = image_folder(2)
    embed(folder)
    result, _ = embed(folder, encoder=other_encoder)
    assert result.code == 1
    for bundle in (encoder, other_encoder):
        assert load_bundle(bundle).fingerprint[:12] in result.err
    for option, value in (("--size", 64), ("--mpp", 1.0), ("--feature-dtype", "float32")):
        result, _ = embed(folder, option, value)
        assert result.code == 1
        assert str(tmp_path / "archive") in result.err
    assert open_archive(tmp_path / "archive").number == 1


def test_a_slide_with_an_unreadable_patch_is_left_out_as_a_whole(
    embed, write_slide, tmp_path, monkeypatch, rows_of
):
    write_slide("slides/bad.tif")
    write_slide("slides/good.tif", seed=1)
    from patchknn.datasets.images import PatchReader
    from patchknn.errors import InputError

    usual = PatchReader.read_all

    def failing(self, patches):
        results = usual(self, patches)
        spoilt = [p.source == "bad.tif" and p.y == 64 for p in patches]
        error = InputError("bad.tif: a tile is damaged.")
        return [error if bad else r for bad, r in zip(spoilt, results, strict=True)]

    monkeypatch.setattr(PatchReader, "read_all", failing)
    result, summary = embed(tmp_path / "slides")
    assert result.code == 3
    assert (summary["sources"], summary["failed"]) == (1, 1)
    assert "bad.tif: a tile is damaged. (4 of 32 patches failed.)" in result.err
    assert {row.split("@")[0] for row in rows_of()} == {"good.tif"}


def test_zarr_and_hdf5_hold_the_same_rows(embed, image_folder, tmp_path, rows_of):
    folder = image_folder(5)
    embed(folder, archive="zarr")
    embed(folder, "--format", "hdf5", archive="hdf5")
    assert rows_of("zarr") == rows_of("hdf5")


def test_options_of_a_new_archive(embed, image_folder, tmp_path, patchknn):
    folder = image_folder(3)
    embed(folder, "--no-labels", "--thumbnails", 16, "--feature-dtype", "float32", "--no-backbone")
    snapshot = open_archive(tmp_path / "archive")
    assert snapshot.classes == ()
    assert snapshot.shards[0].features.dtype == np.float32
    assert snapshot.shards[0].thumbnail(0)[:2] == b"\xff\xd8"
    result = patchknn("embed", folder, "-a", tmp_path / "archive")
    assert result.code == 0  # all there: no encoder is needed
    result = patchknn("embed", image_folder(1, "new", first=5), "-a", tmp_path / "archive")
    assert result.code == 1
    assert "has no backbone: give --encoder" in result.err
    result = patchknn("embed", folder, "-a", tmp_path / "none")
    assert result.code == 2
    assert "give --encoder" in result.err


def test_a_patient_that_changed_is_said(embed, image_folder, tmp_path, rows_of):
    """What is archived keeps its patient, and a query would leave out another's."""
    folder = image_folder(4)
    images = sorted(folder.rglob("*.png"))
    for patients in ("AABB", "AABB", "ABBC"):
        lines = [f"{p.relative_to(folder)},{q}" for p, q in zip(images, patients, strict=True)]
        (folder / "m.csv").write_text("\n".join(["path,patient", *lines]) + "\n")
        result, summary = embed(folder / "m.csv")
        assert result.code == 0
        name = images[1].relative_to(folder).as_posix()
        told = f"keeps so: 2; {name} is of A there and of B here: 'patchknn archive remove' them"
        assert (told in result.err) is (patients == "ABBC")
    assert (summary["skipped"], summary["rows"]) == (4, 0)
    assert sorted(value[3] for value in rows_of().values()) == list("AABB")


def test_splits_and_patients_of_a_manifest(embed, image_folder, tmp_path, rows_of):
    folder = image_folder(4)
    lines = [f"{'ABC'[n % 3]}/{n:03}.png,P{n},{'train' if n < 3 else 'val'}" for n in range(4)]
    (folder / "m.csv").write_text("\n".join(["path,patient,split", *lines]) + "\n")
    embed(folder / "m.csv", "--split", "train")
    patients = [value[3] for value in rows_of().values()]
    assert sorted(patients) == ["P0", "P1", "P2"]


def test_a_dry_run_writes_nothing(embed, image_folder, tmp_path):
    folder = image_folder(3)
    (folder / "zero.png").touch()
    result, summary = embed(folder, "--dry-run")
    assert result.code == 3
    assert summary == {"dry_run": True, "sources": 3, "skipped": 0, "failed": 1}
    assert not (tmp_path / "archive").exists()
    embed(folder)
    _, summary = embed(folder, "--dry-run")
    assert (summary["sources"], summary["skipped"]) == (0, 3)


def test_a_dry_run_refuses_what_the_run_would(embed, image_folder, other_encoder, tmp_path):
    folder = image_folder(3)
    embed(folder)
    for options in ({"encoder": other_encoder}, {"archive": "data"}):
        real, _ = embed(folder, **options)
        dry, _ = embed(folder, "--dry-run", **options)
        assert (dry.code, dry.err) == (real.code, real.err) == (1, real.err)


def test_positions_that_cannot_be_fail_alone(embed, write_slide, tmp_path, rows_of):
    write_slide("s.tif")
    (tmp_path / "m.csv").write_text("path,x,y\ns.tif,1e30,0\ns.tif,0,0\ns.tif,1.5,0\n")
    result, summary = embed(tmp_path / "m.csv")
    assert (result.code, summary["failed"]) == (3, 2)
    assert f"{tmp_path / 'm.csv'}, line 2: x is 1e+30, not a pixel of level 0." in result.err
    assert set(rows_of()) == {"s.tif@0_0"}


def test_paths_on_stdin(embed, image_folder, tmp_path, monkeypatch):
    folder = image_folder(3)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/A/000.png\n{folder}/B/001.png\n"))
    _, summary = embed("-")
    assert summary["rows"] == 2


def test_what_is_embedded_is_indexed(embed, image_folder, tmp_path):
    embed(image_folder(7))
    cover = open_archive(tmp_path / "archive").cover
    assert [segment.n_rows for segment in cover.segments] == [7]
    embed(image_folder(9))
    snapshot = open_archive(tmp_path / "archive")
    assert sum(segment.n_rows for segment in snapshot.cover.segments) == snapshot.n_rows == 9
    assert snapshot.cover.bare == ()


def test_a_failure_to_index_is_a_warning(embed, image_folder, tmp_path):
    embed(image_folder(3))
    index = tmp_path / "archive" / "index"
    shutil.rmtree(index)
    index.write_text("in the way")
    result, summary = embed(image_folder(5))
    assert (result.code, summary["rows"], summary["failed"]) == (0, 2, 0)
    (line,) = result.err.splitlines()
    assert line.startswith("warning: The new rows are not indexed (")
    assert line.endswith(f"until 'patchknn archive index {tmp_path / 'archive'}' succeeds.")
    assert open_archive(tmp_path / "archive").n_rows == 5
