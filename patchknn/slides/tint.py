"""Pixels of tissue in the colour of a class, the more of it the surer the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.slides.class_colours import Colour

_WEAKEST, _STRONGEST = 0.12, 0.78
_CONTRAST = 0.7

Picture = npt.NDArray[np.uint8]


def strength(confidence: float) -> float:
    """How much of a tile's colour is its class's, from 0 to 1."""
    return _WEAKEST + (_STRONGEST - _WEAKEST) * min(max(confidence, 0.0), 1.0)


def blended(area: Picture, colour: Colour, share: float) -> Picture:
    """Pixels (h, w, 3) as grey, with a share of a colour."""
    mixed = grey(area) * (1 - share) + np.array(colour) * share
    return np.rint(mixed).astype(np.uint8)


def grey(area: Picture) -> npt.NDArray[Any]:
    """Their lightness (ITU-R BT.601), three times; dark tissue is paler, so that tints are seen."""
    light = 255 - _CONTRAST * (255 - area @ np.array([0.299, 0.587, 0.114]))
    return np.repeat(light[:, :, None], 3, axis=2)
