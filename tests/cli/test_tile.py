"""``patchknn tile`` from the command line to the files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchknn.slides.tileset import read_tileset

GLASS, PINK = (244, 243, 244), (200, 120, 170)


def _rgb(seed=0):
    rgb = np.full((512, 640, 3), GLASS, np.uint8)
    noise = np.random.default_rng(seed).normal(0, 9, (384, 384, 3))
    rgb[:384, :384] = (np.array(PINK) + noise).clip(0, 255)
    return rgb


def _slide(path, rgb=None, mpp=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    resolution = {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
    tifffile.imwrite(path, _rgb() if rgb is None else rgb, tile=(128, 128), **resolution)
    return path


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    for seed, name in enumerate(("one.tif", "deep/zwei 😐.tif")):
        _slide(folder / name, _rgb(seed))
    return folder


def _rows(result):
    return {row["name"]: row for row in map(json.loads, result.out.splitlines())}


ARGUMENTS = ("--size", 128, "--workers", 1)


def test_a_folder_of_slides(patchknn, slides, tmp_path):
    tiles = tmp_path / "tiles"
    result = patchknn("tile", slides, "-o", tiles, *ARGUMENTS)
    assert (result.code, result.err) == (0, "tile: 2 done, 0 skipped, 0 empty, 0 failed.\n")
    rows = _rows(result)
    assert list(rows["one.tif"]) == ["name", "status", "tiles", "path", "detail"]
    assert (rows["one.tif"]["status"], rows["one.tif"]["tiles"]) == ("done", 9)
    tileset = read_tileset(tiles / "deep" / "zwei 😐.h5")
    assert (tileset.name, len(tileset)) == ("deep/zwei 😐.tif", 9)
    assert tileset.slide == slides / "deep" / "zwei 😐.tif"
    found = sorted(p.relative_to(tiles).as_posix() for p in tiles.rglob("*") if p.is_file())
    assert [name for name in found if not name.startswith(".jobs/")] == [
        "deep/zwei 😐.h5",
        "one.h5",
    ]


def test_what_is_done_is_skipped_and_a_changed_setting_or_slide_is_done_again(
    patchknn, slides, tmp_path
):
    tiles = tmp_path / "tiles"
    line = ("tile", slides / "one.tif", "-o", tiles, *ARGUMENTS)
    assert _rows(patchknn(*line))["one.tif"]["status"] == "done"
    before = (tiles / "one.h5").stat().st_mtime_ns
    again = patchknn(*line)
    assert (_rows(again)["one.tif"]["status"], again.code) == ("skipped", 0)
    assert _rows(again)["one.tif"]["tiles"] == 9
    assert (tiles / "one.h5").stat().st_mtime_ns == before
    changed = patchknn(*line, "--stride", 64)
    assert _rows(changed)["one.tif"]["status"] == "done"
    assert _rows(changed)["one.tif"]["tiles"] > 9
    assert _rows(patchknn(*line, "--images", "png"))["one.tif"]["status"] == "done"
    assert len(list((tiles / "one").glob("*.png"))) == 9
    assert _rows(patchknn(*line))["one.tif"]["status"] == "done"
    assert not (tiles / "one").exists()
    _slide(slides / "one.tif", np.full((512, 640, 3), 255, np.uint8))
    assert _rows(patchknn(*line))["one.tif"]["status"] == "empty"


def test_bad_slides_are_reported_and_the_rest_is_done(patchknn, slides, tmp_path):
    (slides / "empty.svs").touch()
    (slides / "text.png").write_text("not an image")
    whole = _slide(slides / "half.tif").read_bytes()
    (slides / "half.tif").write_bytes(whole[: len(whole) // 2])
    _slide(slides / "nompp.tif", mpp=None)
    _slide(slides / "dpi72.tif", mpp=25400 / 72)
    _slide(slides / "white.tif", np.full((300, 300, 3), 255, np.uint8))
    result = patchknn("tile", slides, slides / "gone.svs", "-o", tmp_path / "tiles", *ARGUMENTS)
    assert result.code == 3
    rows = _rows(result)
    words = {
        "empty.svs": "is an empty file",
        "text.png": "is not an image",
        "half.tif": "half.tif",
        "nompp.tif": "--default-mpp",
        "dpi72.tif": "352.8",
        "gone.svs": "does not exist",
    }
    for name, text in words.items():
        assert rows[name]["status"] == "failed"
        assert text in rows[name]["error"]
        assert result.err.count(rows[name]["error"]) == 1
    assert rows["white.tif"]["status"] == "empty"
    assert rows["white.tif"]["detail"] == "no tile holds 50% tissue"
    assert rows["one.tif"]["status"] == "done"
    assert result.err.splitlines()[-1] == "tile: 2 done, 0 skipped, 1 empty, 6 failed."
    assert "Traceback" not in result.err


def test_exit_code_1_when_all_failed(patchknn, tmp_path):
    result = patchknn("tile", tmp_path / "gone.svs", "-o", tmp_path / "tiles")
    assert result.code == 1
    assert "gone.svs does not exist" in result.err


def test_two_slides_that_claim_one_file(patchknn, tmp_path):
    one, other = _slide(tmp_path / "s" / "a.tif"), tmp_path / "s" / "a.tiff"
    _slide(other, _rgb(1))
    result = patchknn("tile", tmp_path / "s", "-o", tmp_path / "t")
    assert result.code == 3
    rows = _rows(result)
    failed = rows["a.tiff"]["error"]
    assert str(one) in failed
    assert str(other) in failed
    alone = patchknn("tile", other, "-o", tmp_path / "t")
    assert alone.code == 1
    assert str(one) in alone.err


def test_a_picture_beside_a_slide_does_not_take_its_place(patchknn, tmp_path):
    _slide(tmp_path / "s" / "a.tif")
    Image.fromarray(_rgb()).save(tmp_path / "s" / "a.png")
    result = patchknn("tile", tmp_path / "s", "-o", tmp_path / "t", "--default-mpp", 0.5)
    assert result.code == 3
    rows = _rows(result)
    assert rows["a.tif"]["status"] == "done"
    assert "would both be" in rows["a.png"]["error"]


def test_a_list_gives_names_mpp_patients_and_labels(patchknn, tmp_path):
    _slide(tmp_path / "raw" / "x1.tif", mpp=None)
    _slide(tmp_path / "raw" / "x2.tif", mpp=None)
    table = tmp_path / "slides.tsv"
    table.write_text(
        "path\tname\tmpp\tpatient\tlabel\n"
        "raw/x1.tif\tfirst.tif\t0.25\tP1\tTUM\n"
        "raw/x2.tif\t\t72\t\t\n"
    )
    result = patchknn("tile", table, "-o", tmp_path / "t", *ARGUMENTS)
    assert result.code == 3
    assert "72 µm/px was given" in _rows(result)["raw/x2.tif"]["error"]
    tileset = read_tileset(tmp_path / "t" / "first.h5")
    assert (tileset.patient, tileset.level0_mpp, set(tileset.labels)) == ("P1", 0.25, {"TUM"})


def test_annotations_and_an_image_folder(patchknn, slides, tmp_path):
    ring = [[0, 0], [256, 0], [256, 512], [0, 512], [0, 0]]
    marks = tmp_path / "marks"
    marks.mkdir()
    (marks / "one.geojson").write_text(
        json.dumps(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": "Tumor"}},
            }
        )
    )
    line = ("tile", slides, "-o", tmp_path / "t", "--annotations", marks, "--images", "jpeg")
    result = patchknn(*line, *ARGUMENTS)
    assert result.code == 0
    assert "deep/zwei 😐.tif: no annotations for it" in result.err
    assert read_tileset(tmp_path / "t" / "one.h5").labels.count("Tumor") == 6
    assert len(list((tmp_path / "t" / "one" / "Tumor").glob("*.jpg"))) == 6
    assert len(list((tmp_path / "t" / "one").glob("*.jpg"))) == 3
    assert _rows(patchknn(*line, *ARGUMENTS))["one.tif"]["status"] == "skipped"
    one_file = patchknn(*line[:4], "--annotations", marks / "one.geojson")
    assert one_file.code == 2
    (marks / "one.geojson").write_text("{")
    broken = patchknn(*line, *ARGUMENTS)
    assert broken.code == 3
    assert "one.geojson cannot be read as annotations" in broken.err


def test_a_dry_run_says_and_writes_nothing(patchknn, slides, tmp_path):
    _slide(slides / "nompp.tif", mpp=None)
    line = ("tile", slides, "-o", tmp_path / "t", "--dry-run")
    result = patchknn(*line)
    assert result.code == 3
    assert {name: row["status"] for name, row in _rows(result).items()} == {
        "one.tif": "planned", "deep/zwei 😐.tif": "planned", "nompp.tif": "failed",
    }  # fmt: skip
    assert not (tmp_path / "t").exists()
    assert "2 planned, 0 skipped, 1 failed" in result.err


def test_paths_from_stdin_and_a_tsv(patchknn, slides, tmp_path, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{slides / 'one.tif'}\n\n"))
    result = patchknn("tile", "-", "-o", tmp_path / "t", "--format", "tsv", *ARGUMENTS)
    assert result.out.splitlines()[0] == "name\tstatus\ttiles\tpath\tdetail"
    assert result.out.splitlines()[1].startswith("one.tif\tdone\t9\t")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert patchknn("tile", "-", "-o", tmp_path / "t").code == 2


def test_wrong_settings_are_usage_errors(patchknn, slides, tmp_path):
    for wrong in (("--slide-mpp", 40), ("--default-mpp", 0.001), ("--min-tissue", 2)):
        assert patchknn("tile", slides, "-o", tmp_path / "t", *wrong).code == 2
    assert not (tmp_path / "t").exists()


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(patchknn, slides, tmp_path):
    (tmp_path / "t").write_text("mine")
    result = patchknn("tile", slides, "-o", tmp_path / "t")
    assert result.code == 2
    assert result.err == f"patchknn: {tmp_path / 't'} is a file, not a folder; choose another -o.\n"
    assert (tmp_path / "t").read_text() == "mine"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_batch_and_keeps_what_is_done(
    patchknn, slides, tmp_path, little_room, workers
):
    line = ("tile", slides, "-o", tmp_path / "t", *ARGUMENTS, "--workers", workers)
    assert patchknn("tile", slides / "one.tif", *line[2:]).code == 0
    before = (tmp_path / "t" / "one.h5").read_bytes()
    with little_room(1000):
        result = patchknn(*line)
    assert result.code == 3
    assert "File too large." in result.err
    assert ".tmp-" not in result.err
    assert (tmp_path / "t" / "one.h5").read_bytes() == before
    assert [file.name for file in (tmp_path / "t").rglob(".*")] == [".jobs"]
    assert patchknn(*line).code == 0


def test_what_failed_is_told_by_status_and_tried_alone(patchknn, slides, tmp_path):
    tiles = tmp_path / "t"
    line = ("tile", slides, "-o", tiles, *ARGUMENTS)
    assert "no record of a run" in patchknn("jobs", "status", tiles).err
    assert "no record tells" in patchknn(*line, "--only-failed").err
    (slides / "bad.svs").write_bytes(b"no slide")
    result = patchknn(*line, "--retries", 2)
    assert result.code == 3
    assert result.err.count("bad.svs") == 1
    status = patchknn("jobs", "status", tiles)
    assert status.code == 3
    told = json.loads(status.out)
    assert [told[name] for name in ("units", "done", "running", "failed", "pending")] == [
        3, 2, 0, 1, 0,
    ]  # fmt: skip
    (failed,) = told["failed_units"]
    assert (failed["unit"], failed["attempts"]) == ("bad.svs", 3)
    assert failed["error"] == _rows(result)["bad.svs"]["error"]
    lines = patchknn("jobs", "status", tiles, "--format", "tsv").out.splitlines()
    assert [row.split("\t")[:2] for row in lines[1:]] == [
        ["bad.svs", "failed"], ["deep/zwei 😐.tif", "done"], ["one.tif", "done"],
    ]  # fmt: skip
    _slide(slides / "bad.svs")
    again = patchknn(*line, "--only-failed")
    assert (again.code, list(_rows(again))) == (0, ["bad.svs"])
    assert "done" in patchknn("jobs", "status", tiles, "--format", "table").out
    assert json.loads(patchknn("jobs", "status", tiles).out)["done"] == 3


def test_the_largest_slides_come_first(patchknn, tmp_path):
    for number, side in enumerate((1, 3, 2)):
        rgb = np.tile(_rgb(number), (side, 1, 1))
        _slide(tmp_path / "s" / f"{number}.tif", rgb)
    result = patchknn("tile", tmp_path / "s", "-o", tmp_path / "t", *ARGUMENTS)
    assert [json.loads(row)["name"] for row in result.out.splitlines()] == [
        "1.tif", "2.tif", "0.tif",
    ]  # fmt: skip


def test_upsampling_only_on_request(patchknn, slides, tmp_path):
    line = ("tile", slides / "one.tif", "-o", tmp_path / "t", "--mpp", 0.25)
    refused = patchknn(*line)
    assert refused.code == 1
    assert "--allow-upsample" in refused.err
    assert patchknn(*line, "--allow-upsample").code == 0


def test_a_moved_slide_keeps_its_tiles_and_another_of_its_name_is_refused(
    patchknn, slides, tmp_path
):
    line = ("-o", tmp_path / "t", *ARGUMENTS)
    patchknn("tile", slides, *line)
    moved = slides.rename(tmp_path / "moved")
    row = _rows(patchknn("tile", moved, *line))["one.tif"]
    assert row["status"] == "skipped"
    assert read_tileset(tmp_path / "t" / "one.h5").slide == moved / "one.tif"
    other = _slide(tmp_path / "others" / "one.tif", _rgb(9)).parent
    refused = patchknn("tile", other, *line)
    assert refused.code == 1
    assert str(moved / "one.tif") in refused.err
    assert str(other / "one.tif") in refused.err


def test_a_foreign_file_is_not_overwritten(patchknn, slides, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "one.h5").write_text("mine")
    result = patchknn("tile", slides / "one.tif", "-o", tmp_path / "t")
    assert result.code == 1
    assert "is in the way" in result.err
    assert (tmp_path / "t" / "one.h5").read_text() == "mine"


def _command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "patchknn", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=4096,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def test_the_same_command_many_times_at_once(tmp_path):
    names = [f"s{number:02}.tif" for number in range(12)]
    for seed, name in enumerate(names):
        _slide(tmp_path / "slides" / name, _rgb(seed))
    line = ("tile", tmp_path / "slides", "-o", tmp_path / "t", "--images", "png", *ARGUMENTS[:2])
    processes = [_command(*line, "--workers", workers) for workers in (1, 1, 2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    rows = [json.loads(row) for out, _ in outputs for row in out.splitlines()]
    assert sorted(row["name"] for row in rows if row["status"] == "done") == names
    assert {row["status"] for row in rows} <= {"done", "skipped"}
    assert not (tmp_path / "t" / ".claims").exists()
    assert len(list((tmp_path / "t").rglob("*.png"))) == 12 * 9


@pytest.mark.parametrize(
    ("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGUSR1)]
)
def test_a_signal_keeps_what_is_done_and_leaves_no_claims(tmp_path, workers, number):
    # Their rows are more than the pipe holds, so that the command waits to be read: it cannot
    # end before the signal comes.
    for seed in range(40):
        _slide(tmp_path / "slides" / f"{'long' * 40}{seed:02}.tif", _rgb(seed))
    line = ("tile", tmp_path / "slides", "-o", tmp_path / "t", "--size", 32, "--images", "png")
    process = _command(*line, "--workers", workers)
    assert json.loads(process.stdout.readline())["status"] == "done"
    os.killpg(process.pid, number)  # as a scheduler does, which tells the workers too
    err = process.communicate()[1]
    assert process.returncode == 75, err
    assert f"stopped by {number.name}" in err
    assert "Traceback" not in err
    left = [p.name for p in (tmp_path / "t").iterdir() if p.name.startswith(".")]
    assert left == [".jobs"]
    finished = list((tmp_path / "t").glob("*.h5"))
    assert 0 < len(finished) < 40
    for file in finished:
        assert len(read_tileset(file)) > 0


def test_real_fixtures(patchknn, shared_data, tmp_path):
    result = patchknn("tile", shared_data / "wsi", "-o", tmp_path / "t", "--default-mpp", 0.5)
    assert result.code == 3
    rows = _rows(result)
    assert rows["CMU-1-Small-Region.svs"]["status"] == "done"
    assert rows["OS-1-detail.ome.tif"]["status"] == "done"
    assert rows["openslide-python-fixtures/unreadable.svs"]["status"] == "failed"
    assert rows["openslide-python-fixtures/unopenable.tiff"]["status"] == "failed"
    assert rows["openslide-python-fixtures/boxes_0.dcm"]["status"] == "empty"
    assert "openslide-python-fixtures/boxes_1.dcm" not in rows
    tileset = read_tileset(tmp_path / "t" / "CMU-1-Small-Region.h5")
    assert 40 <= len(tileset) <= 60
