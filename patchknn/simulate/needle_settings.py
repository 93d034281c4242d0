"""What is asked of images with a needle, and where the objects of one of them lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Kind = Literal["digits", "tissue"]


@dataclass(frozen=True)
class NeedleSettings:
    """What to make.

    ``ratio`` is the area of the needle's box over that of the image, in (0, 1]; ``size_px`` the
    width and height of an image; ``needle`` the digit that is one; ``clutter`` the share of
    places that hold an object (None: the kind's own); ``split`` the shares of train, val and
    test. ``patients`` (each with a staining of its own) and ``mpp`` (µm per pixel) are for tissue.
    """

    kind: Kind = "digits"
    ratio: float = 0.01
    images: int = 1000
    size_px: int = 512
    needle: int = 3
    clutter: float | None = None
    split: tuple[float, ...] = (70.0, 15.0, 15.0)
    patients: int = 12
    mpp: float = 0.5
    seed: int = 0

    @property
    def object_px(self) -> int:
        """Width and height of the needle's box: the whole pixels that come nearest ``ratio``."""
        return round(math.sqrt(self.ratio) * self.size_px)

    @property
    def realised_ratio(self) -> float:
        """The ratio that whole pixels make of it."""
        return (self.object_px / self.size_px) ** 2


class Scene(NamedTuple):
    """Where the objects of one image lie, in pixels.

    ``needle`` is the left top corner of its box (None: there is none). ``points`` (n, 2) as x, y
    are the left top corners of digits, the needle first, or the centres of lymphocytes.
    """

    needle: tuple[int, int] | None
    points: Points
