"""A legend beside the picture of a slide: what its colours mean, how strong they are, a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from patchknn.slides.class_colours import Colour
from patchknn.slides.tint import blended, strength

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_WIDTH, _MARGIN, _LINE, _SWATCH = 250, 14, 20, 13
_INK, _FAINT, _PAPER = (30, 30, 34), (110, 110, 118), (255, 255, 255)
_STEPS = (0.2, 0.4, 0.6, 0.8, 1.0)


class Legend(NamedTuple):
    """What is told: the slide's ``title``, a faint line below, and ``lines`` behind their colours.

    ``steps`` names what makes ``colour`` strong, ``framed`` is what a hollow tile means, None where
    there are none. A pixel of the picture is ``downsample`` of level 0, and these ``mpp`` µm, None
    where that is unknown.
    """

    title: str
    subtitle: str
    lines: Sequence[tuple[Colour | None, str]]
    steps: str
    colour: Colour
    downsample: float
    mpp: float | None
    framed: str | None = None


def beside_legend(picture: Image, legend: Legend) -> Image:
    """The picture with its legend to the right."""
    from PIL import Image

    height = max(picture.height, 2 * _MARGIN + _LINE * (len(legend.lines) + 10))
    sheet = Image.new("RGB", (picture.width + _WIDTH, height), _PAPER)
    sheet.paste(picture, (0, 0))
    _Writer(sheet, picture.width).write(legend)
    return sheet


class _Writer:
    def __init__(self, sheet: Image, picture_width: int) -> None:
        from matplotlib import get_data_path
        from PIL import ImageDraw, ImageFont

        fonts = Path(get_data_path()) / "fonts" / "ttf"
        self._bold = ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 13)
        self._plain = ImageFont.truetype(fonts / "DejaVuSans.ttf", 11)
        self._sheet, self._pen = sheet, ImageDraw.Draw(sheet)
        self._left, self._picture_width = picture_width + _MARGIN, picture_width

    def write(self, legend: Legend) -> None:
        pen, left, top = self._pen, self._left, _MARGIN
        room, beside = _WIDTH - 2 * _MARGIN, left + _SWATCH + 8
        pen.text((left, top), _fitted(legend.title, self._bold, room), _INK, self._bold)
        top += _LINE
        pen.text((left, top), legend.subtitle, _FAINT, self._plain)
        top += _LINE + _LINE // 2
        for colour, text in legend.lines:
            if colour is not None:
                pen.rectangle((left, top, left + _SWATCH, top + _SWATCH), colour)
            line = _fitted(text, self._plain, room - _SWATCH - 8)
            pen.text((beside, top), line, _INK, self._plain)
            top += _LINE
        top += _LINE // 2
        pen.text((left, top), legend.steps, _FAINT, self._plain)
        top += _LINE
        self._draw_steps(legend.colour, top)
        top += 2 * _LINE
        if legend.framed is not None:
            pen.rectangle((left, top, left + _SWATCH, top + _SWATCH), outline=_INK, width=3)
            pen.text((beside, top), legend.framed, _INK, self._plain)
            top += _LINE + _LINE // 2
        length, text = _scale_bar(legend, min(self._picture_width, room))
        pen.rectangle((left, top, left + length - 1, top + 3), _INK)
        pen.text((left, top + 6), text, _FAINT, self._plain)

    def _draw_steps(self, colour: Colour, top: int) -> None:
        from PIL import Image

        left, size = self._left, 2 * _SWATCH
        tissue = np.full((size // 2 + 6, size, 3), 215, np.uint8)
        for step in _STEPS:
            tinted = blended(tissue, colour, strength(step))
            self._sheet.paste(Image.fromarray(tinted), (left, top))
            centre = (left + size // 2, top + 21)
            self._pen.text(centre, f"{step:.0%}", _FAINT, self._plain, anchor="ma")
            left += size + 12


def _scale_bar(legend: Legend, room: int) -> tuple[int, str]:
    """Its length in pixels of the picture, and what it says."""
    downsample, mpp = legend.downsample, legend.mpp
    unit = downsample if mpp is None else downsample * mpp
    length = _round_below(unit * room)
    said = f"{length:g} px of level 0"
    if mpp is not None:
        said = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
        said += f"; {unit:.3g} µm/px"
    return max(round(length / unit), 1), said


def _round_below(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))


def _fitted(text: str, font: FreeTypeFont, room: int) -> str:
    """Text without control characters, cut to ``room`` pixels."""
    text = "".join(char if char.isprintable() else "�" for char in text[:500])
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"
