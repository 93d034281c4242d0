"""What a file of stored features says of its patches: their size, µm/px, and where they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.datasets.stored import FeaturePart, Origin
from patchknn.errors import InputError

# What holds for one slide alone, even where all have the same.
OF_A_SLIDE = ("level0_width", "level0_height")
# What an export gives back, and nothing that names a slide, a patient or a folder.
_KEPT = (
    *("patch_size", "patch_level", "custom_downsample", "overlap"),
    *("level0_magnification", "target_magnification", "target_mpp"),
    *OF_A_SLIDE,
    *("tile_size_um", "tile_size_px", "unit", "feat_type", "stamp_version"),
)
# TRIDENT and CLAM speak of magnifications where they mean µm/px: 20× is 0.5, 40× is 0.25.
UM_PER_MAGNIFICATION = 10.0
_WHOLE = 1e-3
_FURTHEST = 2.0**52


class Figures(NamedTuple):
    """``patch_px`` the side of a patch in pixels at ``mpp`` µm/px; ``level0_mpp`` of the slide.

    None where the file does not say. ``kept`` are those of its attributes that an export gives
    back. ``is_scaled``: positions were in µm and are pixels of ``level0_mpp`` now.
    """

    patch_px: int | None
    mpp: float | None
    level0_mpp: float | None
    kept: dict[str, Any]
    is_scaled: bool = False


Unit = Literal["px", "um"]


def figures_of(
    origin: Origin, *, slide_mpp: float | None = None, unit: Unit | None = None
) -> Figures:
    """The figures of one file; ``slide_mpp`` µm/px and ``unit`` go before what it says itself.

    Positions in µm become pixels of level 0 where its µm/px is known. Where it is not, they
    become pixels of the patch's own µm/px (STAMP says no other), which then stands as that of
    level 0: no position is rounded that lay on the grid of patches.
    """
    said = origin.attributes
    patch_px = _number(said, "patch_size") or _number(said, "tile_size_px")
    level0 = slide_mpp or _number(said, "level0_mpp") or _number(said, "mpp")
    level0 = level0 or _of_magnification(said, "level0_magnification")
    mpp = _number(said, "target_mpp") or _of_magnification(said, "target_magnification")
    side_um, side_px = _number(said, "tile_size_um"), _number(said, "tile_size_px")
    if mpp is None and side_um and side_px:
        mpp = side_um / side_px
    side_level0 = _number(said, "patch_size_level0")
    if mpp is None and level0 and side_level0 and patch_px:
        mpp = level0 * side_level0 / patch_px
    if slide_mpp is None and mpp and side_level0 and patch_px:
        was = None if level0 is None else round(patch_px * mpp / level0)
        if was != round(side_level0):  # magnifications are nominal; what was cut out is a fact
            level0 = mpp * patch_px / side_level0
    is_scaled = (unit or origin.unit) == "um"
    if is_scaled and level0 is None:
        level0 = mpp
    kept = {name: said[name] for name in _KEPT if _is_plain(said.get(name))}
    return Figures(None if patch_px is None else round(patch_px), mpp, level0, kept, is_scaled)


def pixel_coords(
    part: FeaturePart, figures: Figures, unit: Unit | None = None
) -> npt.NDArray[np.int64]:
    """Positions (n, 2) int64 of a part in pixels of ``level0_mpp``, −1 where there are none.

    Raises InputError where their unit or scale is not known, or they are no such pixels.
    """
    path, coords = part.origin.path, part.coords
    if not len(part) or (coords == -1).all():
        return np.full((len(part), 2), -1, np.int64)
    if (unit or part.origin.unit) is None:
        message = f"{path} does not say whether its coords are pixels or µm: give --unit px or um."
        raise InputError(message)
    if figures.is_scaled:
        if figures.level0_mpp is None:
            message = f"{path} has coords in µm and says no µm/px: give --slide-mpp."
            raise InputError(message)
        coords = coords / figures.level0_mpp
    with np.errstate(invalid="ignore"):
        whole = np.rint(coords)
        wrong = ~(np.abs(whole) < _FURTHEST)
        if not figures.is_scaled:
            wrong |= ~(np.abs(coords - whole) < _WHOLE)
    if wrong.any():
        row = int(np.argmax(wrong.any(axis=1)))
        x, y = part.coords[row].tolist()
        message = f"{path}: the position {x:g}, {y:g} of row {row} is no pixel of level 0."
        raise InputError(message)
    return whole.astype(np.int64)


def _number(said: Mapping[str, Any], name: str) -> float | None:
    """A figure above 0; TRIDENT writes 'None' where it has none."""
    value = said.get(name)
    if isinstance(value, bool | list):
        return None
    try:
        number = float(value) if value is not None else 0.0
    except (TypeError, ValueError):
        return None
    return number if 0 < number < math.inf else None


def _of_magnification(said: Mapping[str, Any], name: str) -> float | None:
    magnification = _number(said, name)
    return None if magnification is None else UM_PER_MAGNIFICATION / magnification


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
