"""``embed`` as a whole: what is archived, skipped, refused, kept, and shared by processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.bundle import load_bundle
from patchknn.jobs.claims import Claims
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide


@pytest.fixture
def embed(patchknn, encoder, tmp_path):
    """Run ``patchknn embed`` into ``tmp_path/archive``; the result and its summary."""

    def call(*arguments, archive="archive", encoder=encoder, **_):
        result = patchknn(
            "embed", *arguments, "-e", encoder, "-a", tmp_path / archive, "--workers", 0,
            "--device", "cpu",
        )  # fmt: skip
        summary = json.loads(result.out) if result.out.startswith("{") else None
        return result, summary

    return call


def _rows(archive):
    """id → (feature bytes, code, label, patient), to compare archives of any order."""
    snapshot = open_archive(Path(archive))
    rows = {}
    for number in range(len(snapshot)):
        row = snapshot.row(number)
        shard, local = snapshot.shard_of(number)
        rows[row.id] = (shard.features[local].tobytes(), row.code, row.label, row.patient)
    assert len(rows) == len(snapshot)
    return rows


def _assert_same(archive, other):
    """The same rows and labels; features within one unit in the last place of float16."""
    rows, others = _rows(archive), _rows(other)
    assert rows.keys() == others.keys()
    for key, (feature, _, *words) in rows.items():
        ordered, expected = (
            np.frombuffer(f, np.int16).astype(int) for f in (feature, others[key][0])
        )
        assert np.abs(ordered - expected).max() <= 1
        assert words == list(others[key][2:])


def _is_sound(archive):
    return not [
        finding for finding in verify_archive(Path(archive)) if hasattr(finding, "sentence")
    ]


def test_an_image_folder_becomes_rows_with_labels(embed, image_folder, tmp_path, encoder):
    result, summary = embed(image_folder(7))
    assert (result.code, result.err) == (0, "")
    assert {k: summary[k] for k in ("rows", "sources", "skipped", "empty", "failed")} == {
        "rows": 7, "sources": 7, "skipped": 0, "empty": 0, "failed": 0,
    }  # fmt: skip
    snapshot = open_archive(tmp_path / "archive")
    assert summary["manifest"] == snapshot.number == 1
    assert sorted(snapshot.classes) == ["A", "B", "C"]
    assert {row: value[2] for row, value in _rows(tmp_path / "archive").items()} == {
        f"{'ABC'[n % 3]}/{n:03}.png": "ABC"[n % 3] for n in range(7)
    }
    assert snapshot.settings.patch_px == 32
    bundle = load_bundle(encoder)
    for shard in snapshot.shards:
        assert shard.features.dtype == np.float16
        np.testing.assert_array_equal(shard.codes, bundle.codes(np.asarray(shard.features)))
    assert _is_sound(tmp_path / "archive")


def test_slides_tile_sets_and_manifests_of_patches_give_the_same_rows(
    embed, write_slide, tmp_path, patchknn
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
    fly, stored, listed = (_rows(tmp_path / name) for name in ("a1", "a2", "a3"))
    assert len(fly) == len(tiles) > 20
    assert {key: value[:3] for key, value in fly.items()} == {k: v[:3] for k, v in stored.items()}
    assert fly == listed
    (source,) = open_archive(tmp_path / "a2").sources()
    assert (source.patient, source.mpp) == ("P1", pytest.approx(0.5))
    assert source.path == str(slide)


def test_what_archive_list_prints_can_be_embedded_again(embed, write_slide, tmp_path, patchknn):
    write_slide("slides/s.tif")
    embed(tmp_path / "slides")
    listing = patchknn("archive", "list", tmp_path / "archive", "--format", "tsv")
    (tmp_path / "list.tsv").write_text(listing.out)
    result, _ = embed(tmp_path / "list.tsv", archive="again")
    assert result.code == 0, result.err
    assert _rows(tmp_path / "again") == _rows(tmp_path / "archive")


def test_the_same_command_again_does_nothing_and_new_images_are_added(
    embed, image_folder, tmp_path
):
    folder = image_folder(6)
    embed(folder)
    before = _rows(tmp_path / "archive")
    _, again = embed(folder)
    assert (again["rows"], again["skipped"], again["manifest"]) == (0, 6, 1)
    image_folder(3, first=6)
    (folder / "A" / "000.png").touch()  # another time, the same content
    _, more = embed(folder)
    assert (more["rows"], more["skipped"], more["manifest"]) == (3, 6, 2)
    after = _rows(tmp_path / "archive")
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
    embed, image_folder, write_slide, tmp_path
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
    rows = _rows(tmp_path / "archive")
    assert {"cmyk.tif", "palette.png", "rgba.png", "deep.png"} < set(rows)
    assert any(row.startswith("ünï 😐.tif@") for row in rows)
    assert _is_sound(tmp_path / "archive")
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
    embed, write_slide, image_folder, tmp_path, monkeypatch
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
    assert {row.split("@")[0] for row in _rows(tmp_path / "archive")} == {"good.tif"}


def test_zarr_and_hdf5_hold_the_same_rows(embed, image_folder, tmp_path):
    folder = image_folder(5)
    embed(folder, archive="zarr")
    embed(folder, "--format", "hdf5", archive="hdf5")
    assert _rows(tmp_path / "zarr") == _rows(tmp_path / "hdf5")


def test_options_of_a_new_archive(embed, image_folder, tmp_path, patchknn):
    folder = image_folder(3)
    embed(folder, "--no-labels", "--thumbnails", 16, "--feature-dtype", "float32", "--no-backbone")
    snapshot = open_archive(tmp_path / "archive")
    assert snapshot.classes == ()
    assert snapshot.shards[0].features.dtype == np.float32
    assert snapshot.shards[0].thumbnail(0)[:2] == b"\xff\xd8"
    result = patchknn("embed", folder, "-a", tmp_path / "archive")
    assert result.code == 0  # all there: no encoder is needed
    result = patchknn("embed", image_folder(1, "new"), "-a", tmp_path / "archive")
    assert result.code == 1
    assert "has no backbone: give --encoder" in result.err
    result = patchknn("embed", folder, "-a", tmp_path / "none")
    assert result.code == 2
    assert "give --encoder" in result.err


def test_splits_and_patients_of_a_manifest(embed, image_folder, tmp_path):
    folder = image_folder(4)
    lines = [f"{'ABC'[n % 3]}/{n:03}.png,P{n},{'train' if n < 3 else 'val'}" for n in range(4)]
    (folder / "m.csv").write_text("\n".join(["path,patient,split", *lines]) + "\n")
    embed(folder / "m.csv", "--split", "train")
    patients = [value[3] for value in _rows(tmp_path / "archive").values()]
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


def test_paths_on_stdin(embed, image_folder, tmp_path, monkeypatch):
    folder = image_folder(3)
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/A/000.png\n{folder}/B/001.png\n"))
    _, summary = embed("-")
    assert summary["rows"] == 2


def test_a_full_disk_keeps_what_was_published(embed, image_folder, tmp_path, monkeypatch):
    folder = image_folder(3)
    embed(folder)
    before = _rows(tmp_path / "archive")
    image_folder(3, first=3)

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "archive" / "shards"))

    with monkeypatch.context() as patch:
        patch.setattr("patchknn.archive.writer.write_shard", full)
        result, _ = embed(folder)
    assert result.code == 1
    assert "the disk is full" in result.err
    assert _rows(tmp_path / "archive") == before
    assert _is_sound(tmp_path / "archive")
    _, summary = embed(folder)
    assert (summary["rows"], summary["skipped"]) == (3, 3)


def test_units_in_the_hands_of_another_process_are_left_to_it(embed, write_slide, tmp_path):
    write_slide("slides/a.tif")
    write_slide("slides/b.tif", seed=1)
    embed(tmp_path / "slides" / "a.tif", archive="archive")
    write_slide("slides/c.tif", seed=2)
    with Claims(tmp_path / "archive" / ".claims") as other:
        assert other.claim("b.tif")
        result, summary = embed(tmp_path / "slides")
    assert result.code == 0
    assert (summary["sources"], summary["skipped"], summary["held"]) == (1, 1, 1)
    assert "in the hands of other processes" in result.err
    _, summary = embed(tmp_path / "slides")
    assert (summary["sources"], summary["skipped"], summary["held"]) == (1, 2, 0)


_SLOW = """
import sys, time
from patchknn.encoder.inference import FeatureExtractor
usual = FeatureExtractor.tensor_features
def slow(self, images):
    print("batch", flush=True)
    time.sleep({delay})
    return usual(self, images)
FeatureExtractor.tensor_features = slow
sys.argv = ["patchknn", *sys.argv[1:]]
from patchknn.cli.main import entry
entry()
"""


def _start(encoder, archive, *arguments, delay=0.0):
    command = [
        sys.executable, "-c", _SLOW.format(delay=delay), "embed", *map(str, arguments),
        "-e", encoder, "-a", archive, "--device", "cpu", "--batch-size", "4",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def _wait_for_batches(process, count):
    for _ in range(count):
        assert process.stdout.readline() == "batch\n"


def test_a_killed_process_loses_nothing_published_and_the_same_command_goes_on(
    embed, encoder, write_slide, tmp_path
):
    for number in range(4):
        write_slide(f"slides/{number}.tif", seed=number, size=128)  # 8 patches, 2 batches
    folder = tmp_path / "slides"
    archive = tmp_path / "archive"
    process = _start(encoder, archive, folder, "--publish-every", "0", "--workers", "1", delay=0.2)
    _wait_for_batches(process, 7)  # a trial, then two slides are published, the third is in hand
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    kept = _rows(archive)
    assert {row.split("@")[0] for row in kept} >= {"0.tif", "1.tif"}
    assert len(kept) < 32
    result, summary = embed(folder, "--batch-size", 4)
    assert result.code == 0
    assert summary["skipped"] == len(kept) // 8
    embed(folder, "--batch-size", 4, archive="single")
    _assert_same(archive, tmp_path / "single")
    assert _is_sound(archive)


def test_sigterm_publishes_what_is_complete_and_exits_75(
    embed, encoder, image_folder, write_slide, tmp_path
):
    images = image_folder(40)
    archive = tmp_path / "archive"
    process = _start(encoder, archive, images, "--workers", "1", delay=0.2)
    _wait_for_batches(process, 4)  # a trial, two done, one in hand
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "stopped by SIGTERM" in err
    assert "Traceback" not in err
    kept = _rows(archive)
    assert 8 <= len(kept) < 40
    assert json.loads(out.splitlines()[-1])["rows"] == len(kept)
    _, summary = embed(images, "--batch-size", 4)
    assert summary["skipped"] == len(kept)
    assert len(_rows(archive)) == 40
    assert _is_sound(archive)


def test_many_processes_at_once_do_every_slide_once(encoder, write_slide, tmp_path, embed):
    for number in range(5):
        write_slide(f"slides/{number}.tif", seed=number, size=128)
    archive = tmp_path / "archive"
    processes = [
        _start(encoder, archive, tmp_path / "slides", "--workers", "0", delay=0.1) for _ in range(2)
    ]
    summaries = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        summaries.append(json.loads(out.splitlines()[-1]))
    embed(tmp_path / "slides")
    assert sum(summary["sources"] for summary in summaries) <= 5
    assert len(_rows(archive)) == 40
    embed(tmp_path / "slides", archive="single")
    _assert_same(archive, tmp_path / "single")
    assert _is_sound(archive)
