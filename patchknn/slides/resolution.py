"""How large a pixel is: µm/px from metadata, and whether a figure can be true."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

from patchknn.errors import InputError

MIN_MPP, MAX_MPP = 0.05, 2.0
_UM_PER_INCH, _UM_PER_CM = 25400.0, 10000.0
_UM_PER_UNIT = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3,
    "pm": 1e-6, "å": 1e-4, "in": _UM_PER_INCH, "thou": 25.4,
}  # fmt: skip


def is_plausible(mpp: float | None) -> bool:
    """Whether a figure in µm/px lies within 0.05 to 2, as every slide scanner's does."""
    return mpp is not None and MIN_MPP <= mpp <= MAX_MPP


def settle_mpp(
    name: str, own: float | None, slide_mpp: float | None, default_mpp: float | None
) -> tuple[float | None, str | None]:
    """Choose the level-0 µm/px: the override, else the slide's own, else the default.

    ``own`` outside 0.05 to 2 is taken as wrong, and the second value is the sentence that says
    so. Raises InputError where the figure that someone gave is outside.
    """
    for given in (slide_mpp, default_mpp):
        if given is not None and not is_plausible(given):
            message = (
                f"{name}: {given:g} µm/px was given for it, outside {MIN_MPP:g} to {MAX_MPP:g}; "
                "give the size of a level-0 pixel."
            )
            raise InputError(message)
    if slide_mpp is not None:
        return slide_mpp, None
    if is_plausible(own):
        return own, None
    note = None
    if own is not None and math.isfinite(own):
        note = (
            f"{name} says {own:.4g} µm/px, which is outside {MIN_MPP:g} to {MAX_MPP:g} "
            "and taken as wrong."
        )
    return default_mpp, note


def mean_mpp(x: float | None, y: float | None) -> float | None:
    """One figure from the horizontal and the vertical one; None where neither is a number > 0."""
    known = [v for v in (x, y) if v is not None and math.isfinite(v) and v > 0]
    return sum(known) / len(known) if known else None


def mpp_from_density(x: float | None, y: float | None, unit: str | None) -> float | None:
    """µm/px from pixels per ``unit`` (``inch`` or ``centimeter``); None without either."""
    um = {"inch": _UM_PER_INCH, "centimeter": _UM_PER_CM}.get((unit or "").lower())
    if um is None:
        return None
    return mean_mpp(um / x if x else None, um / y if y else None)


def mpp_from_ome(xml: str) -> float | None:
    """PhysicalSizeX and Y of the first image of an OME-XML text, in µm/px."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError:
        return None
    for element in root.iter():
        if element.tag.rsplit("}", 1)[-1] == "Pixels":
            return mean_mpp(_physical_size(element, "X"), _physical_size(element, "Y"))
    return None


def _physical_size(pixels: ET.Element, axis: str) -> float | None:
    unit = _UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().lower())
    try:
        size = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return None if unit is None else size * unit
