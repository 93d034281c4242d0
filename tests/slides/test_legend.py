"""What stands beside a picture, and that the picture stays as it is."""

import numpy as np
import pytest
from PIL import Image

from patchknn.slides.legend import Legend, beside_legend

PICTURE = np.full((40, 300, 3), (220, 120, 180), np.uint8)
RED, BLUE = (200, 30, 30), (20, 40, 220)
INK = (30, 30, 34)


def beside(**told: object) -> np.ndarray:
    given = {
        "title": "s.svs",
        "subtitle": "3 tiles",
        "lines": [(RED, "tumour"), (BLUE, "stroma"), (None, "2 others")],
        "steps": "confidence",
        "colour": RED,
        "downsample": 10.0,
        "mpp": 0.5,
    }
    legend = Legend(**{**given, **told})
    return np.array(beside_legend(Image.fromarray(PICTURE), legend))


def bar_length(sheet: np.ndarray) -> int:
    """The longest run of ink in the legend."""
    ink = (sheet[:, 300:] == INK).all(axis=2)
    return max(len(run) for row in ink for run in "".join(map(str, row.astype(int))).split("0"))


def test_the_picture_stays_and_the_legend_is_as_high_as_it_must_be() -> None:
    sheet = beside()
    assert (sheet[:40, :300] == PICTURE).all()
    assert (sheet[40:, :300] == 255).all()
    assert len(beside(lines=[(RED, "x")] * 20)) > len(sheet) > 40


def test_each_colour_stands_before_its_line() -> None:
    sheet = beside()
    rows = [np.flatnonzero((sheet[:, 320] == colour).all(axis=1)) for colour in (RED, BLUE)]
    assert all(len(found) == 14 for found in rows)
    assert rows[1][0] - rows[0][0] == 20


@pytest.mark.parametrize(
    ("downsample", "mpp", "pixels"),
    [
        (10.0, 0.5, 200),  # 5 µm a pixel: 1 mm in 222 pixels of room
        (4.0, 0.25, 200),  # 1 µm a pixel
        (10.0, None, 200),  # 2,000 pixels of level 0
        (30.0, 1.0, 167),  # 30 µm a pixel: 5 mm
    ],
)
def test_the_bar_is_as_long_as_it_says(downsample: float, mpp: float | None, pixels: int) -> None:
    assert bar_length(beside(downsample=downsample, mpp=mpp)) == pixels


def test_what_is_framed_is_told_where_there_is_any() -> None:
    without, framed = beside(), beside(framed="for review: 3")
    assert (without == INK).all(axis=2).sum() < (framed == INK).all(axis=2).sum() - 100


def test_names_that_are_no_words_are_drawn_too() -> None:
    long = beside(title="x" * 3000 + "\x1b[31m", lines=[(RED, "<b>\u202e\n" * 99)])
    assert long.shape[1] == 300 + 250
