"""A field of fibres: where they run, how they wave, and streaks and strands along them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchknn.simulate.canvas import Floats, Layer, Site

_STREAK_ROWS, _STREAK_COLUMNS = 1024, 256


class Flow:
    """A direction with waves across it; lengths in µm, the direction drawn by chance."""

    def __init__(self, site: Site, amplitude: float, wavelength: float, drift: float) -> None:
        self._site = site
        self.angle = float(site.rng.uniform(0, np.pi))
        self._amplitude = site.pixels(amplitude)
        self._frequency = 2 * np.pi / site.pixels(wavelength)
        self._phase = float(site.rng.uniform(0, 2 * np.pi))
        self._slip = site.smooth_noise(wavelength * 0.9) * np.float32(site.pixels(drift))
        cosine, sine = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        self.along = site.x * cosine + site.y * sine
        wave = np.sin(self._frequency * self.along + self._phase) * np.float32(self._amplitude)
        self.across = site.y * cosine - site.x * sine + wave + self._slip

    def direction(self, points: Floats) -> Floats:
        """The fibres' angle (n,) in radians at points (n, 2) in pixels."""
        along = points[:, 0] * np.cos(self.angle) + points[:, 1] * np.sin(self.angle)
        slope = -self._amplitude * self._frequency
        slope = slope * np.cos(self._frequency * along + self._phase)
        angle: Floats = (self.angle + np.arctan(slope)).astype(np.float32)
        return angle

    def streaks(self, length: float, thickness: float) -> Floats:
        """Noise (height, width) of spread about 1, drawn out along the fibres; lengths in µm."""
        site = self._site
        grid = site.rng.standard_normal((_STREAK_ROWS // 4, _STREAK_COLUMNS // 4))
        image = Image.fromarray(np.pad(grid.astype(np.float32), 2, mode="wrap"))
        box = (2, 2, 2 + _STREAK_COLUMNS // 4, 2 + _STREAK_ROWS // 4)
        fine = image.resize((_STREAK_COLUMNS, _STREAK_ROWS), Image.Resampling.BICUBIC, box=box)
        texture = np.asarray(fine) * np.float32(1.4)
        row = self.across * np.float32(4 / site.pixels(thickness))
        column = self.along * np.float32(4 / site.pixels(length))
        return _interpolated(texture, row, column)

    def strands(self, layer: Layer, spacing: float, length: float, fill: float, width: int) -> None:
        """Draw separate wavy strands; ``spacing`` and ``length`` in µm, ``width`` in pixels."""
        site = self._site
        starts = site.scatter(spacing)
        reach = site.pixels(length) * site.rng.uniform(0.5, 1.5, len(starts))
        points = starts.copy()
        path = [points.copy()]
        steps = 12
        for _ in range(steps):
            angle = self.direction(points) + site.rng.normal(0, 0.06, len(points))
            stride = (reach / steps)[:, None]
            points = points + stride * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            points = points.astype(np.float32)
            path.append(points)
        amounts = fill * np.exp(site.rng.normal(0, 0.25, len(starts)))
        widths = np.maximum(np.rint(width * site.rng.uniform(0.6, 1.5, len(starts))), 1)
        paths = np.stack(path, axis=1).reshape(len(starts), -1).tolist()
        for line, amount, thick in zip(paths, amounts.tolist(), widths.tolist(), strict=True):
            layer.line(line, amount, int(thick))


def _interpolated(texture: Floats, row: Floats, column: Floats) -> Floats:
    """Bilinear, the texture repeating without end."""
    rows, columns = texture.shape
    top, left = np.floor(row), np.floor(column)
    down, right = row - top, column - left
    first = top.astype(np.intp) % rows * columns
    second = (top.astype(np.intp) + 1) % rows * columns
    here = left.astype(np.intp) % columns
    beside = (here + 1) % columns
    flat = texture.ravel()
    upper = flat[first + here] * (1 - right) + flat[first + beside] * right
    lower = flat[second + here] * (1 - right) + flat[second + beside] * right
    values: Floats = upper * (1 - down) + lower * down
    return values
