"""A cluster of lymphocytes in stroma; without it as many lymphocytes, all of them scattered."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from patchknn.simulate.canvas import Layer, Site, Stains
from patchknn.simulate.connective import LYMPHOCYTE
from patchknn.simulate.mosaic import stroma_bands
from patchknn.simulate.needle_settings import NeedleSettings, Points, Scene
from patchknn.simulate.shapes import draw_nuclei
from patchknn.simulate.stain import Staining, draw_stainings, to_rgb

# In µm. Scattered lymphocytes have a cell each and lie in its middle half: 8 µm apart or more.
_CELL = 16.0
_SPACING = 7.5
_SMALLEST = 24.0
_CLUTTER = 0.15
# How many fit is for round clusters; a lattice that lies anyhow needs some room to spare.
_FILLED = 0.8
_LEAST_MEMBERS = 4


class Tissue:
    """Places lymphocytes, and paints them on stroma in the staining of a patient."""

    def __init__(self, settings: NeedleSettings) -> None:
        self._settings = settings
        self._cells = max(int(settings.size_px * settings.mpp / _CELL), 1)
        clutter = _CLUTTER if settings.clutter is None else settings.clutter
        radius = settings.object_px * settings.mpp / 2 - LYMPHOCYTE.length / 2
        fitting = math.pi * max(radius, 0) ** 2 / (_SPACING**2 * math.sqrt(0.75))
        self.members = max(int(_FILLED * fitting), _LEAST_MEMBERS)
        self.places = self._cells**2
        self.objects = round(clutter * self.places) + self.members

    @staticmethod
    def smallest_px(settings: NeedleSettings) -> int:
        """The least width of a cluster: four lymphocytes."""
        return math.ceil(_SMALLEST / settings.mpp)

    def place(self, *, positive: bool, rng: np.random.Generator) -> Scene:
        """Scatter lymphocytes, or gather ``members`` of them and scatter the rest around."""
        size, side = self._settings.size_px, self._settings.object_px
        step = size / self._cells
        along = (np.arange(self._cells) + 0.5) * step
        middles = np.stack(np.meshgrid(along, along), axis=2).reshape(-1, 2)
        if not positive:
            return Scene(None, self._scattered(middles, self.objects, rng))
        corner = rng.integers(0, size - side + 1, 2)
        middle = corner + side / 2
        apart = np.abs(middles - middle).max(axis=1) > (side + step) / 2
        scattered = self._scattered(middles[apart], self.objects - self.members, rng)
        points = np.concatenate([middle + self._cluster(rng), scattered])
        return Scene((int(corner[0]), int(corner[1])), points)

    def _scattered(self, middles: Points, count: int, rng: np.random.Generator) -> Points:
        chosen = rng.choice(len(middles), min(count, len(middles)), replace=False)
        quarter = self._settings.size_px / self._cells / 4
        return np.asarray(middles[chosen] + rng.uniform(-quarter, quarter, (len(chosen), 2)))

    def _cluster(self, rng: np.random.Generator) -> Points:
        """Centres (members, 2) of close lymphocytes about 0, in pixels."""
        reach = int(math.sqrt(self.members)) + 3
        down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        lattice = np.stack([right + 0.5 * (down % 2), down * math.sqrt(0.75)], axis=2)
        points = lattice.reshape(-1, 2) + rng.uniform(-0.5, 0.5, 2)
        turn = rng.uniform(0, 2 * math.pi)
        rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        points = points[np.argsort(np.hypot(*points.T))[: self.members]] @ np.array(rotation)
        points += rng.uniform(-0.06, 0.06, points.shape)
        points -= (points.min(axis=0) + points.max(axis=0)) / 2
        return np.asarray(points * _SPACING / self._settings.mpp)

    def paint(
        self, scene: Scene, split: str, patient: int, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        """Colours (size, size, 3); all splits are drawn alike."""
        del split
        size, mpp = self._settings.size_px, self._settings.mpp
        staining = _stainings(self._settings.patients, self._settings.seed)[patient]
        site = Site(size, size, mpp, rng)
        nuclei = Layer(site)
        draw_nuclei(site, nuclei, scene.points.astype(np.float32), LYMPHOCYTE)
        # Sections are not equally thick, nor do both dyes take equally everywhere.
        thickness, uptake = np.exp(rng.normal(0, [0.2, 0.15])).astype(np.float32)
        canvas = np.empty((size, size, 3), np.uint8)
        for top, ground in stroma_bands(size, mpp, rng):
            rows = slice(top, top + len(ground.eosin))
            amounts = nuclei.amounts(rows=(rows.start, rows.stop))
            haematoxylin = (ground.haematoxylin + amounts) * thickness * uptake
            eosin = np.clip(ground.eosin - np.float32(0.1) * amounts, 0.01, None)
            stains = Stains(haematoxylin, eosin * (thickness / uptake))
            canvas[rows] = to_rgb(stains, staining, rng)
        return canvas


@functools.cache
def _stainings(patients: int, seed: int) -> list[Staining]:
    return draw_stainings(patients, np.random.default_rng([seed, patients]))
