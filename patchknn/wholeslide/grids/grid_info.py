"""What a grid file says of itself, and its attributes on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchknn import __version__

FORMAT = "patchknn-grid"
FORMAT_VERSION = 1
ENTRIES = (1, 8)
"""How many vectors a place may have: one, or one for each flip and rotation of its patch."""


@dataclass(frozen=True)
class GridInfo:
    """Where the places of a slide's grid lie, and what encoded them.

    ``patch_px`` and ``stride_px`` count pixels at ``mpp`` µm/px. In level-0 pixels: place (row,
    column) holds the patch whose top left corner is ``level0_origin`` (x, y) + (column, row) ×
    ``level0_step``, rounded; ``level0_size`` is the slide's (width, height). ``encoder`` is the
    fingerprint of the bundle. ``slide`` is the file that was compressed, ``settings`` all that the
    grid hangs on, as JSON has it.
    """

    name: str
    patch_px: int
    stride_px: int
    mpp: float
    level0_mpp: float
    level0_step: float
    level0_size: tuple[int, int]
    encoder: str
    level0_origin: tuple[float, float] = (0.0, 0.0)
    precision: str = "float32"
    patient: str | None = None
    slide: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    @property
    def level0_patch(self) -> float:
        """Level-0 pixels on a side of a patch."""
        return self.patch_px * self.mpp / self.level0_mpp

    def corners(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Level-0 top-left corners x, y (n, 2) int64 of places (n, 2), rows and columns."""
        steps = places[:, ::-1] * self.level0_step
        corners: NDArray[np.int64] = np.rint(np.asarray(self.level0_origin) + steps).astype(
            np.int64
        )
        return corners

    def places_of(self, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places (n, 2), rows and columns, of level-0 corners x, y (n, 2).

        Raises ValueError where one is the corner of no place.
        """
        steps = (corners - np.asarray(self.level0_origin)) / self.level0_step
        places: NDArray[np.int64] = np.rint(steps).astype(np.int64)[:, ::-1]
        if (places < 0).any() or not np.array_equal(self.corners(places), corners):
            message = f"corners do not lie every {self.level0_step:g} level-0 pixels"
            raise ValueError(message)
        return places


_TEXTS = ("name", "encoder", "precision", "version")
_OPTIONAL_TEXTS = ("patient", "slide")
_INTEGERS = ("patch_px", "stride_px")
_NUMBERS = ("mpp", "level0_mpp", "level0_step")


def as_attributes(info: GridInfo) -> dict[str, Any]:
    """The attributes of a grid file, for HDF5 and JSON alike."""
    plain = (*_TEXTS, *_INTEGERS, *_NUMBERS)
    optional = {name: getattr(info, name) for name in _OPTIONAL_TEXTS}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **{name: getattr(info, name) for name in plain},
        **{name: value for name, value in optional.items() if value is not None},
        "level0_origin": list(info.level0_origin),
        "level0_size": list(info.level0_size),
        "settings": json.dumps(info.settings, sort_keys=True),
    }


def from_attributes(attributes: Mapping[str, Any]) -> GridInfo:
    """The inverse; raises ValueError or KeyError where they are no grid's, or a newer one's."""
    if attributes.get("format") != FORMAT:
        message = "it says of itself nothing that grids say"
        raise ValueError(message)
    if int(attributes["format_version"]) > FORMAT_VERSION:
        message = f"it is of format {attributes['format_version']}; update patchknn, which reads 1"
        raise ValueError(message)
    (x, y), (width, height) = attributes["level0_origin"], attributes["level0_size"]
    values: dict[str, Any] = {name: str(attributes[name]) for name in _TEXTS}
    for name in _OPTIONAL_TEXTS:
        values[name] = str(attributes[name]) if name in attributes else None
    values |= {name: int(attributes[name]) for name in _INTEGERS}
    values |= {name: float(attributes[name]) for name in _NUMBERS}
    return GridInfo(
        **values,
        level0_origin=(float(x), float(y)),
        level0_size=(int(width), int(height)),
        settings=json.loads(attributes["settings"]),
    )
