import csv
import json
from pathlib import Path

import numpy as np
import pytest

from patchknn.errors import ConflictError, UsageError
from patchknn.simulate.classes import CLASS_NAMES
from patchknn.simulate.slides import SlideSettings, simulate_slides

SMALL = SlideSettings(slides=3, patients=2, size_px=600, mpp=0.5, seed=11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "slides"
    list(simulate_slides(folder, SMALL))
    return folder


def pixels(path: Path) -> np.ndarray:
    import tifffile

    return np.asarray(tifffile.imread(path))


def test_openslide_and_tiffslide_open_the_slides_with_the_right_mpp(folder: Path) -> None:
    import openslide
    import tiffslide

    for path in sorted(folder.glob("*.tiff")):
        with openslide.OpenSlide(str(path)) as slide:
            assert slide.detect_format(str(path)) == "generic-tiff"
            assert slide.level_dimensions == ((600, 600), (300, 300))
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-4)
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5, rel=1e-4)
            one = np.asarray(slide.read_region((64, 128), 0, (256, 256)).convert("RGB"))
        with tiffslide.TiffSlide(path) as slide:
            assert slide.level_dimensions == ((600, 600), (300, 300))
            assert slide.properties["tiffslide.mpp-x"] == pytest.approx(0.5, rel=1e-4)
            other = np.asarray(slide.read_region((64, 128), 0, (256, 256)))
        assert np.abs(one.astype(int) - other[..., :3]).mean() < 2


def test_smaller_levels_show_the_same_picture(folder: Path) -> None:
    import tifffile

    path = min(folder.glob("*.tiff"))
    with tifffile.TiffFile(path) as file:
        large, small = (page.asarray().astype(float) for page in file.pages)
    halved = large.reshape(300, 2, 300, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 5


def test_list_names_slides_patients_and_annotations(folder: Path) -> None:
    with (folder / "slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == ["P1", "P2", "P1"]
    for row in rows:
        assert (folder / row["path"]).is_file()
        collection = json.loads((folder / row["annotations"]).read_text())
        names = {f["properties"]["classification"]["name"] for f in collection["features"]}
        assert names == set(CLASS_NAMES)


def test_same_seed_same_pixels_however_many_threads(folder: Path, tmp_path: Path) -> None:
    list(simulate_slides(tmp_path / "again", SMALL, workers=3))
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_other_pixels(folder: Path, tmp_path: Path) -> None:
    other = SlideSettings(slides=1, patients=1, size_px=600, seed=12)
    (slide,) = simulate_slides(tmp_path / "other", other)
    same = pixels(folder / "patient1_slide1.tiff") == pixels(slide.path)
    assert same.mean() < 0.5


def test_one_patient_is_stained_alike_and_another_differently(folder: Path) -> None:
    """Colour of the darkest tissue, which is haematoxylin's: alike within, apart between."""

    def dye(path: Path) -> np.ndarray:
        density = -np.log((pixels(path).reshape(-1, 3) + 1.0) / 256)
        total = density.sum(axis=1)
        mean = density[total > np.quantile(total, 0.9)].mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    first, other, again = (
        dye(path) for path in sorted(folder.glob("*.tiff"), key=lambda p: p.name[-6])
    )
    assert np.linalg.norm(first - again) < np.linalg.norm(first - other)


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConflictError, match="is not empty; give --force"):
        simulate_slides(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConflictError, match="is a file; name a folder"):
        simulate_slides(tmp_path / "file", SMALL)


def test_more_patients_than_slides_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 slides cannot be shared by 3 patients"):
        simulate_slides(tmp_path / "x", SlideSettings(slides=2, patients=3))
    with pytest.raises(UsageError, match="--size-px 100 is too small"):
        simulate_slides(tmp_path / "x", SlideSettings(size_px=100))
    assert not (tmp_path / "x").exists()


def test_mean_colour_does_not_tell_the_tissues_across_patients(folder: Path) -> None:
    """The point of it all: colour alone confuses them, patient by patient."""
    from PIL import Image, ImageDraw
    from sklearn.neighbors import KNeighborsClassifier

    size, colours, labels, patients = 50, [], [], []
    for path in sorted(folder.glob("*.tiff")):
        image = pixels(path)
        truth = Image.new("L", (600, 600), 0)
        collection = json.loads(path.with_suffix(".geojson").read_text())
        for feature in collection["features"]:
            name = feature["properties"]["classification"]["name"]
            (ring,) = feature["geometry"]["coordinates"]
            points = [tuple(point) for point in ring]
            ImageDraw.Draw(truth).polygon(points, fill=CLASS_NAMES.index(name) + 1)
        for top in range(0, 551, size):
            for left in range(0, 551, size):
                box = np.s_[top : top + size, left : left + size]
                counts = np.bincount(np.asarray(truth)[box].ravel(), minlength=10)
                if counts[1:].max() > 0.8 * size * size:
                    colours.append(image[box].reshape(-1, 3).mean(axis=0))
                    labels.append(int(counts[1:].argmax()))
                    patients.append(path.name[:8])
    known = np.array(patients) == "patient1"
    model = KNeighborsClassifier(5).fit(np.array(colours)[known], np.array(labels)[known])
    accuracy = model.score(np.array(colours)[~known], np.array(labels)[~known])
    assert accuracy < 0.65
