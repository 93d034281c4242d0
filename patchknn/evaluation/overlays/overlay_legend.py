"""The legend beside a slide's overlay: classes, confidence, scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.slides.class_colours import Colour, class_colour
from patchknn.slides.tint import blended, strength

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_WIDTH, _MARGIN, _LINE, _SWATCH = 250, 14, 20, 13
_INK, _FAINT, _PAPER = (30, 30, 34), (110, 110, 118), (255, 255, 255)
_MOST_CLASSES = 24
_STEPS = (0.2, 0.4, 0.6, 0.8, 1.0)


def beside_legend(picture: Image, tiles: SlideTiles, downsample: float) -> Image:
    """The picture of a slide with a legend to its right; ``downsample`` is of level 0."""
    from PIL import Image

    writer = _Legend(tiles, downsample, picture.width)
    height = max(picture.height, writer.height)
    sheet = Image.new("RGB", (picture.width + _WIDTH, height), _PAPER)
    sheet.paste(picture, (0, 0))
    writer.draw(sheet, picture.width + _MARGIN)
    return sheet


class _Legend:
    def __init__(self, tiles: SlideTiles, downsample: float, picture_width: int) -> None:
        from matplotlib import get_data_path
        from PIL import ImageFont

        fonts = Path(get_data_path()) / "fonts" / "ttf"
        self._bold = ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 13)
        self._plain = ImageFont.truetype(fonts / "DejaVuSans.ttf", 11)
        self._tiles, self._downsample = tiles, downsample
        self._classes = _class_lines(tiles)
        self._bar = _scale_bar(tiles.mpp, downsample, min(picture_width, _WIDTH - 2 * _MARGIN))
        self.height = 2 * _MARGIN + _LINE * (len(self._classes) + 10)

    def draw(self, sheet: Image, left: int) -> None:
        from PIL import ImageDraw

        pen = ImageDraw.Draw(sheet)
        tiles, room, top = self._tiles, _WIDTH - 2 * _MARGIN, _MARGIN
        pen.text((left, top), fitted(tiles.name, self._bold, room), _INK, self._bold)
        top += _LINE
        pen.text((left, top), f"{len(tiles.coords)} tiles", _FAINT, self._plain)
        top += _LINE + _LINE // 2
        for colour, text in self._classes:
            if colour is not None:
                pen.rectangle((left, top, left + _SWATCH, top + _SWATCH), colour)
            line = fitted(text, self._plain, room - _SWATCH - 8)
            pen.text((left + _SWATCH + 8, top), line, _INK, self._plain)
            top += _LINE
        top += _LINE // 2
        pen.text((left, top), "confidence", _FAINT, self._plain)
        top += _LINE
        self._draw_steps(sheet, left, top)
        top += 2 * _LINE
        if tiles.review.any():
            count = int(tiles.review.sum())
            pen.rectangle((left, top, left + _SWATCH, top + _SWATCH), outline=_INK, width=3)
            pen.text((left + _SWATCH + 8, top), f"for review: {count}", _INK, self._plain)
            top += _LINE + _LINE // 2
        length, text = self._bar
        pen.rectangle((left, top, left + length - 1, top + 3), _INK)
        pen.text((left, top + 6), text, _FAINT, self._plain)

    def _draw_steps(self, sheet: Image, left: int, top: int) -> None:
        from PIL import Image, ImageDraw

        pen = ImageDraw.Draw(sheet)
        present = self._tiles.prediction[self._tiles.prediction >= 0]
        most = int(np.bincount(present).argmax()) if len(present) else -1
        size = 2 * _SWATCH
        tissue = np.full((size // 2 + 6, size, 3), 215, np.uint8)
        for step in _STEPS:
            tinted = blended(tissue, class_colour(most), strength(step))
            sheet.paste(Image.fromarray(tinted), (left, top))
            pen.text((left + size // 2, top + 21), f"{step:.0%}", _FAINT, self._plain, anchor="ma")
            left += size + 12


def _class_lines(tiles: SlideTiles) -> list[tuple[Colour | None, str]]:
    """The classes that were predicted, in the archive's order: how often, and how surely."""
    counts = np.bincount(tiles.prediction + 1, minlength=len(tiles.classes) + 1)
    present = np.flatnonzero(counts[1:])
    shown = present
    if len(present) > _MOST_CLASSES:
        shown = np.sort(present[np.argsort(-counts[1:][present], kind="stable")[:_MOST_CLASSES]])
    lines: list[tuple[Colour | None, str]] = []
    for number in shown.tolist():
        sure = float(np.nanmean(tiles.confidence[tiles.prediction == number]))
        text = f"{counts[number + 1]} at {sure:.0%}  {tiles.classes[number]}"
        lines.append((class_colour(number), text))
    rest = int(counts[1:].sum() - counts[1:][shown].sum())
    if rest:
        lines.append((None, f"{rest} in {len(present) - len(shown)} others"))
    if counts[0]:
        lines.append((class_colour(-1), f"{counts[0]} without a prediction"))
    return lines


def _scale_bar(mpp: float | None, downsample: float, room: int) -> tuple[int, str]:
    """Its length in pixels of the picture, and what it says."""
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


def fitted(text: str, font: FreeTypeFont, room: int) -> str:
    """Text without control characters, cut to ``room`` pixels."""
    text = "".join(char if char.isprintable() else "�" for char in text[:500])
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"
