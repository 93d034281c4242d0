"""Pictures on a page: each once, and together no larger than they may be."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
from PIL import Image

from patchknn.evaluation.report.picture_sheet import PictureSheet


def pictures_in(sheet: PictureSheet) -> list[Image.Image]:
    data = re.findall(r"base64,([A-Za-z0-9+/=]+)\)", "".join(sheet.css()))
    return [Image.open(BytesIO(b64decode(one))) for one in data]


def test_a_picture_is_there_once_however_often_it_is_asked_for() -> None:
    red = np.full((40, 40, 3), (200, 10, 10), np.uint8)
    blue = np.full((40, 40, 3), (10, 10, 200), np.uint8)
    sheet = PictureSheet(10, 100_000)
    reads = []

    def read(picture: np.ndarray) -> np.ndarray:
        reads.append(1)
        return picture

    numbers = [
        sheet.add(key, lambda picture=picture: read(picture))
        for key, picture in (("a", red), ("b", blue), ("a", red), ("same as a", red.copy()))
    ]
    assert numbers == [0, 1, 0, 0]
    assert len(reads) == 3
    assert len(sheet) == 2
    first, second = pictures_in(sheet)
    assert np.abs(np.array(first).mean(axis=(0, 1)) - (200, 10, 10)).max() < 6
    assert np.abs(np.array(second).mean(axis=(0, 1)) - (10, 10, 200)).max() < 6


def test_what_cannot_be_read_is_counted_once_and_has_no_picture() -> None:
    sheet = PictureSheet(2, 100_000)
    assert sheet.add("gone", lambda: None) is None
    assert sheet.add("gone", lambda: None) is None
    assert sheet.missing == 1
    assert "".join(sheet.css()) == ""


def test_together_they_stay_below_the_limit_and_use_what_they_may() -> None:
    """Noise is what JPEG compresses worst: 550 pictures with the room that 5500 have on a page."""
    rng = np.random.default_rng(0)
    most = 1_000_000
    sheet = PictureSheet(550, most)
    for number in range(550):
        # Half of it grey: about as much as tissue takes.
        picture = rng.integers(90, 166, (112, 112, 3), dtype=np.uint8)
        sheet.add(number, lambda picture=picture: picture)
    size = len("".join(sheet.css()))
    assert 0.6 * most < size < most
    assert min(picture.size[0] for picture in pictures_in(sheet)) >= 48


def test_few_pictures_are_large_and_small_ones_are_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    sheet = PictureSheet(2, 1_000_000)
    sheet.add(0, lambda: rng.integers(0, 256, (224, 224, 3), dtype=np.uint8))
    sheet.add(1, lambda: rng.integers(0, 256, (27, 27, 3), dtype=np.uint8))
    assert [picture.size for picture in pictures_in(sheet)] == [(112, 112), (27, 27)]


def test_pictures_that_are_not_square_are_cut_and_not_squeezed() -> None:
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[:, 30:90] = 255
    sheet = PictureSheet(1, 100_000)
    sheet.add(0, lambda: picture)
    (shown,) = pictures_in(sheet)
    assert shown.size == (60, 60)
    assert np.array(shown).mean() > 240
