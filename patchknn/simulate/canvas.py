"""What every tissue is drawn on: two stain amounts per pixel, and random fields to vary them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Floats = npt.NDArray[np.float32]

# Pillow draws 8-bit grey; this many grey steps are one unit of stain.
_STEPS_PER_UNIT = 85.0


@dataclass(frozen=True)
class Stains:
    """Haematoxylin and eosin amounts (height, width) float32; 1 is an ordinary cytoplasm's."""

    haematoxylin: Floats
    eosin: Floats


class Site:
    """One region being painted: its size in pixels, its scale and its own source of chance."""

    def __init__(self, height: int, width: int, mpp: float, rng: np.random.Generator) -> None:
        self.height = height
        self.width = width
        self.mpp = mpp
        self.rng = rng
        # Fixation and section decide how dark nuclei are, more than the tissue does.
        self.chromatin = float(np.exp(rng.normal(0, 0.22)))
        self.y, self.x = (axis.astype(np.float32) for axis in np.ogrid[: self.height, : self.width])

    def pixels(self, micrometres: float) -> float:
        """A length in pixels."""
        return micrometres / self.mpp

    def blank(self) -> Floats:
        """Zeros (height, width)."""
        return np.zeros((self.height, self.width), np.float32)

    def smooth_noise(self, micrometres: float, octaves: int = 1) -> Floats:
        """A random field (height, width) of mean 0 and spread about 1, varying over a length."""
        total = self.blank()
        for octave in range(octaves):
            scale = max(self.pixels(micrometres) / 2**octave, 1.0)
            rows, columns = int(self.height / scale) + 4, int(self.width / scale) + 4
            grid = self.rng.standard_normal((rows, columns)).astype(np.float32)
            box = (1.0, 1.0, 1.0 + self.width / scale, 1.0 + self.height / scale)
            image = Image.fromarray(grid)
            size = (self.width, self.height)
            field = image.resize(size, Image.Resampling.BICUBIC, box=box)
            total += np.asarray(field) * np.float32(1.4 / 2**octave)
        return total

    def scatter(self, spacing: float, jitter: float = 0.45) -> Floats:
        """Points (n, 2) as x, y in pixels, on a jittered hexagonal grid of a spacing in µm."""
        step = self.pixels(spacing)
        rows = np.arange(-1, int(self.height / (step * 0.866)) + 3)
        columns = np.arange(-1, int(self.width / step) + 3)
        grid_x, grid_y = np.meshgrid(columns, rows)
        offset = self.rng.random(2)
        x = (grid_x + 0.5 * (grid_y % 2) - offset[0]) * step
        y = (grid_y - offset[1]) * step * 0.866
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        points += self.rng.uniform(-jitter, jitter, points.shape) * step
        return points.astype(np.float32)

    def at(self, field: Floats, points: Floats) -> Floats:
        """A field's values (n,) at points (n, 2); points outside take the border's."""
        column = np.clip(points[:, 0], 0, self.width - 1).astype(np.intp)
        row = np.clip(points[:, 1], 0, self.height - 1).astype(np.intp)
        values: Floats = field[row, column]
        return values


class Layer:
    """Shapes drawn by Pillow, read back as stain amounts (height, width) in 0..3."""

    def __init__(self, site: Site, ground: float = 0.0) -> None:
        self._image = Image.new("L", (site.width, site.height), _grey(ground))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, outline: list[float], fill: float, rim: float | None = None) -> None:
        """A closed shape ``[x0, y0, x1, y1, …]``."""
        self._draw.polygon(outline, fill=_grey(fill), outline=None if rim is None else _grey(rim))

    def line(self, path: list[float], fill: float, width: int) -> None:
        """An open path ``[x0, y0, x1, y1, …]``."""
        self._draw.line(path, fill=_grey(fill), width=width, joint="curve")

    def amounts(self, blur: float = 0.7, rows: tuple[int, int] | None = None) -> Floats:
        """The layer as float32; a blur in pixels stands for the microscope's.

        ``rows`` (first, one past the last) are all that is read of a large layer.
        """
        top, bottom = rows or (0, self._image.height)
        reach = math.ceil(4 * blur)
        above, below = max(top - reach, 0), min(bottom + reach, self._image.height)
        image = self._image
        if rows is not None:
            image = image.crop((0, above, image.width, below))
        if blur > 0:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        amounts = np.asarray(image, np.float32) / np.float32(_STEPS_PER_UNIT)
        return amounts if rows is None else amounts[top - above : bottom - above]


def _grey(amount: float) -> int:
    return min(max(round(amount * _STEPS_PER_UNIT), 0), 255)
