"""The folder of images with and without a needle: whole, resumed, and taken by others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.datasets.listing import iter_patches
from patchknn.errors import ConflictError
from patchknn.simulate.needle_folder import simulate_needles
from patchknn.simulate.needle_settings import NeedleSettings
from patchknn.simulate.needles import draw, place, plan_images
from patchknn.tables import read_table

SMALL = NeedleSettings(kind="tissue", ratio=0.2, images=12, size_px=64, mpp=1.0, patients=4, seed=5)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_images_are_as_drawn_and_the_manifest_says_where_the_needle_is(tmp_path: Path) -> None:
    images = list(simulate_needles(tmp_path / "n", SMALL))
    assert images == plan_images(SMALL)
    table = read_table(tmp_path / "n" / "manifest.csv", required=["path"])
    assert len(table.rows) == 12
    for image, row in zip(images, table.rows, strict=True):
        pixels = np.asarray(Image.open(tmp_path / "n" / row["path"]))
        scene, drawn = draw(SMALL, image)
        assert np.array_equal(pixels, drawn)
        assert (row["label"], row["split"]) == (image.label, image.split)
        box = (row["needle_x"], row["needle_y"], row["needle_px"])
        assert box == ((None,) * 3 if scene.needle is None else (*map(str, scene.needle), "29"))
        assert row["objects"] == str(len(scene.points))


def test_others_read_the_manifest_as_whole_images_of_patients(tmp_path: Path) -> None:
    list(simulate_needles(tmp_path / "n", SMALL))
    manifest = tmp_path / "n" / "manifest.csv"
    patches = list(iter_patches([manifest], size=64, mpp=None))
    assert {patch.kind for patch in patches} == {"image"}
    assert {patch.label for patch in patches} == {"needle", "clutter"}
    split_of = {(patch.patient, patch.split) for patch in patches}
    assert len(split_of) == len({patient for patient, _ in split_of}) == 4


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    list(simulate_needles(tmp_path / "whole", SMALL))
    stopped = simulate_needles(tmp_path / "n", SMALL)
    for _ in range(3):
        next(stopped)
    stopped.close()
    assert not (tmp_path / "n" / "manifest.csv").exists()
    first = min((tmp_path / "n").rglob("*.png"))
    before = first.stat().st_mtime_ns
    list(simulate_needles(tmp_path / "n", SMALL, workers=3))
    assert first.stat().st_mtime_ns == before
    assert contents(tmp_path / "n") == contents(tmp_path / "whole")


def test_a_folder_of_other_settings_or_other_files_is_left_alone(tmp_path: Path) -> None:
    list(simulate_needles(tmp_path / "n", SMALL))
    with pytest.raises(ConflictError, match=r"other settings \(ratio is 0.2, not 0.25\)"):
        simulate_needles(tmp_path / "n", replace(SMALL, ratio=0.25))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("keep")
    with pytest.raises(ConflictError, match="is not empty and holds no images of this command"):
        simulate_needles(tmp_path / "m", SMALL)
    with pytest.raises(ConflictError, match="is a file; name a folder"):
        simulate_needles(tmp_path / "m" / "mine.txt", SMALL)
    assert list(contents(tmp_path / "m")) == ["mine.txt"]


def test_where_needles_lie_does_not_hang_on_painting() -> None:
    for image in plan_images(SMALL):
        assert place(SMALL, image).needle == draw(SMALL, image)[0].needle
