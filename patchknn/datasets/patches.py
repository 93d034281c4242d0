"""One patch to read, and one input that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Patch:
    """A plain image, a square of a slide, or a row of stored features.

    ``source`` is the name of the image or slide, ``path`` its file; ``x`` and ``y`` are the
    level-0 top-left pixel, −1 for a plain image. ``slide_mpp`` says µm/px at level 0 against the
    slide's own figure; of a plain image it is what the image has. ``patient`` None is unknown.
    ``row`` is the number of stored features.
    """

    source: str
    path: Path
    kind: Literal["image", "slide", "features"]
    x: int = -1
    y: int = -1
    label: str | None = None
    patient: str | None = None
    split: str | None = None
    slide_mpp: float | None = None
    row: int = -1

    @property
    def id(self) -> str:
        """``name@x_y`` in level-0 pixels, or the name alone for a plain image."""
        return self.source if self.x < 0 and self.y < 0 else f"{self.source}@{self.x}_{self.y}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One input that cannot be used, and the sentence that says why.

    ``final``: it is not the file that fails, and another try will not mend it.
    """

    name: str
    error: str
    final: bool = False
