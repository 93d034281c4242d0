"""The picture of a slide with its predictions, pixel by pixel where that says something."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchknn.errors import InputError
from patchknn.evaluation.overlays.overlay import draw_overlay, tint
from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.slides.class_colours import class_colour
from patchknn.slides.tint import strength

TILE = 24  # pixels of the picture


def slide_tiles(path: Path, **columns) -> SlideTiles:
    """Four tiles of 64 level-0 pixels in a square, of classes 0, 1, 1 and none."""
    given = {
        "name": path.name,
        "path": path,
        "classes": ("A", "B"),
        "side": 64.0,
        "mpp": 0.5,
        "coords": np.array([[0, 0], [64, 0], [0, 64], [64, 64]]),
        "prediction": np.array([0, 1, 1, -1], np.int32),
        "confidence": np.array([1.0, 1.0, 0.2, np.nan]),
        "weighted": np.array([1.0, 1.0, 0.2, np.nan]),
        "distance": np.ones(4),
        "radius": np.ones(4, np.int64),
        "ball": np.ones(4, np.int64),
        "review": np.zeros(4, bool),
    }
    return SlideTiles(**{**given, **columns})


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """192 × 128 pixels of one pink, without a word on their size."""
    path = tmp_path / "s.tif"
    pixels = np.full((128, 192, 3), (220, 120, 180), np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb")
    return path


def blend(share: float, number: int) -> np.ndarray:
    light = 255 - 0.7 * (255 - (0.299 * 220 + 0.587 * 120 + 0.114 * 180))
    return light * (1 - share) + np.array(class_colour(number)) * share


def test_tiles_lie_where_they_are_on_the_slide(slide: Path, tmp_path: Path) -> None:
    draw_overlay(tmp_path / "o.png", slide_tiles(slide))
    with Image.open(tmp_path / "o.png") as image:
        pixels = np.array(image.convert("RGB"))
    expected = np.empty((2 * TILE, 3 * TILE, 3))
    expected[:] = (220, 120, 180)  # what is no tile stays as it is
    expected[:TILE, :TILE] = blend(strength(1.0), 0)
    expected[:TILE, TILE : 2 * TILE] = blend(strength(1.0), 1)
    expected[TILE:, :TILE] = blend(strength(0.2), 1)
    frame = expected[TILE:, TILE : 2 * TILE]
    frame[:] = blend(strength(0.0), -1)
    frame[3:-3, 3:-3] = blend(0, 0)  # no prediction: hollow
    # The outermost pixels have some of the white that lies around the slide.
    inside = (slice(1, 2 * TILE - 1), slice(1, 3 * TILE - 1))
    difference = np.abs(pixels[: 2 * TILE, : 3 * TILE].astype(float) - expected)[inside]
    assert difference.max() <= 1
    assert pixels.shape[1] > 3 * TILE + 100  # the legend beside it


def test_surer_predictions_are_tinted_more_strongly() -> None:
    shares = [strength(confidence) for confidence in (0, 0.25, 0.5, 0.75, 1)]
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert shares[-1] < 1  # the tissue shows through


def test_where_tiles_overlap_the_surer_one_is_seen() -> None:
    picture = np.full((48, 48, 3), 200, np.uint8)
    tiles = slide_tiles(Path("s"), coords=np.array([[0, 0], [32, 0], [0, 64], [64, 64]]))
    tiles = tiles._replace(confidence=np.array([0.9, 0.4, 0.5, np.nan]))
    tint(picture, tiles, 64 / TILE)
    alone = np.full((48, 48, 3), 200, np.uint8)
    apart = np.array([[0, 0], [64, 0], [0, 64], [64, 64]])
    tint(alone, tiles._replace(coords=apart), 64 / TILE)
    assert (picture[:TILE, :TILE] == alone[:TILE, :TILE]).all()


def test_tiles_over_the_edge_are_cut() -> None:
    picture = np.full((24, 24, 3), 200, np.uint8)
    coords = np.array([[-32, -32], [48, 48], [640, 0], [0, 6400]])
    tint(picture, slide_tiles(Path("s"), coords=coords), 64 / TILE)
    assert (picture[0, 0] != 200).any()
    assert (picture[-1, -1] != 200).any()
    assert (picture[0, -1] == 200).all()


def test_review_is_seen_without_colour() -> None:
    picture = np.full((48, 48, 3), 200, np.uint8)
    tint(picture, slide_tiles(Path("s"), review=np.array([True, False, False, False])), 64 / TILE)
    assert len(np.unique(picture[:TILE, :TILE].reshape(-1, 3), axis=0)) == 2
    assert len(np.unique(picture[:TILE, TILE:].reshape(-1, 3), axis=0)) == 1


def test_many_classes_and_hostile_names_have_a_legend(slide: Path, tmp_path: Path) -> None:
    names = tuple(f"<b>\u202e{number}\n" * 50 for number in range(40))
    n = len(names)
    tiles = slide_tiles(
        slide,
        name="x" * 3000 + "\x1b[31m",
        classes=names,
        mpp=None,
        coords=np.zeros((n, 2), np.int64),
        prediction=np.arange(n, dtype=np.int32),
        confidence=np.full(n, 0.5),
        review=np.ones(n, bool),
    )
    draw_overlay(tmp_path / "o.png", tiles)
    with Image.open(tmp_path / "o.png") as image:
        assert image.width == 3 * TILE + 250
        assert 500 < image.height < 1000


def test_a_slide_that_cannot_be_read_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.svs does not exist"):
        draw_overlay(tmp_path / "o.png", slide_tiles(tmp_path / "gone.svs"))
    assert list(tmp_path.iterdir()) == []
