"""The pixels of a patch, whatever it is cut from, at exactly the size that an encoder takes."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from patchknn.datasets.patches import Patch
from patchknn.errors import InputError, PatchknnError
from patchknn.slides.images import read_image
from patchknn.slides.readers import SlideReader, open_slide

Pixels = npt.NDArray[np.uint8]
# Below this share of the side asked for, enlarging would invent what the image does not show.
_LEAST_COVER = 0.9


def fit(image: Pixels, size: int) -> Pixels:
    """An image (H, W, 3) as (size, size, 3): as it is where it fits already.

    Else the short side is brought to ``size`` (antialiased) and the middle is cut out.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    return _resample(image, (left, top, left + short, top + short), size)


def fit_mpp(image: Pixels, size: int, ratio: float) -> Pixels:
    """The middle (size, size, 3) of an image whose pixels are ``ratio`` target pixels wide.

    Raises InputError where the image covers less than that square.
    """
    height, width = image.shape[:2]
    cover = min(height, width) * ratio
    if cover < _LEAST_COVER * size:
        message = (
            f"covers {width * ratio:.0f} × {height * ratio:.0f} px at the target µm/px, less than "
            f"the {size} × {size} of a patch"
        )
        raise InputError(message)
    side = min(size / ratio, height, width)
    if round(side) == size and abs(side - size) < 0.5:
        side = float(size)
    left, top = (width - side) / 2, (height - side) / 2
    if side == size:
        row, column = int(top), int(left)
        return np.ascontiguousarray(image[row : row + size, column : column + size])
    return _resample(image, (left, top, left + side, top + side), size)


class PatchReader:
    """Reads patches one by one or by the batch, keeping the last few slides open.

    A context manager. Safe to hand to another process and over a fork: handles are never shared.
    """

    def __init__(
        self,
        size: int,
        mpp: float | None,
        *,
        default_mpp: float | None = None,
        open_slides: int = 4,
    ) -> None:
        self._size, self._mpp = size, mpp
        self._default_mpp, self._limit = default_mpp, open_slides
        self._slides: OrderedDict[tuple[Path, float | None], SlideReader] = OrderedDict()
        self._pid = os.getpid()

    def read(self, patch: Patch) -> Pixels:
        """One patch, (size, size, 3) uint8; InputError or OSError where it cannot be read."""
        if patch.kind == "slide":
            return self._slide(patch).read_patch(patch.x, patch.y, self._size, self._mpp)
        image = read_image(patch.path)
        if patch.slide_mpp is None or self._mpp is None:
            return fit(image, self._size)
        try:
            return fit_mpp(image, self._size, patch.slide_mpp / self._mpp)
        except InputError as error:
            message = f"{patch.path} {error}; give images of a larger field or leave its mpp away."
            raise InputError(message) from None

    def read_all(self, patches: Sequence[Patch]) -> list[Pixels | PatchknnError | OSError]:
        """Each patch or the error that it gave; neighbours in a slide share their reads."""
        results: list[Pixels | PatchknnError | OSError] = []
        for (kind, *_), run in groupby(patches, lambda p: (p.kind, p.path, p.slide_mpp)):
            members = list(run)
            if kind == "slide" and len(members) > 1:
                together = self._read_run(members)
                if together is not None:
                    results += together
                    continue
            results += [self._read_or_error(patch) for patch in members]
        return results

    def _read_run(self, patches: list[Patch]) -> list[Pixels] | None:
        try:
            slide = self._slide(patches[0])
            corners = [(patch.x, patch.y) for patch in patches]
            return list(slide.read_patches(corners, self._size, self._mpp))
        except (PatchknnError, OSError):  # one of them: each alone will say which
            return None

    def _read_or_error(self, patch: Patch) -> Pixels | PatchknnError | OSError:
        try:
            return self.read(patch)
        except (PatchknnError, OSError) as error:
            return error

    def _slide(self, patch: Patch) -> SlideReader:
        if self._pid != os.getpid():  # after a fork the handles are the parent's
            self._slides, self._pid = OrderedDict(), os.getpid()
        key = (patch.path, patch.slide_mpp)
        if key not in self._slides:
            self._slides[key] = open_slide(
                patch.path, slide_mpp=patch.slide_mpp, default_mpp=self._default_mpp
            )
            while len(self._slides) > self._limit:
                self._slides.popitem(last=False)[1].close()
        self._slides.move_to_end(key)
        return self._slides[key]

    def close(self) -> None:
        """Let all slides go."""
        slides, self._slides = self._slides, OrderedDict()
        if self._pid == os.getpid():
            for slide in slides.values():
                slide.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_slides": OrderedDict(), "_pid": -1}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_patch(patch: Patch, size: int, mpp: float | None) -> Pixels:
    """The pixels of one patch, (size, size, 3) uint8 at ``mpp`` µm/px (None: level-0 pixels).

    For many of them use PatchReader, which keeps slides open. Raises InputError.
    """
    with PatchReader(size, mpp) as reader:
        return reader.read(patch)


def _resample(image: Pixels, box: tuple[float, float, float, float], size: int) -> Pixels:
    from PIL import Image

    picture = Image.fromarray(image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
