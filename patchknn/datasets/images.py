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


def fit(image: Pixels, size: int, crop: float = 1.0) -> Pixels:
    """The middle of an image (H, W, 3) as (size, size, 3), antialiased, resampled at most once.

    ``crop`` in (0, 1] is the share of the short side that is kept: 0.875 with a size of 224 is
    "resize to 256, cut the middle 224 out" (paper B). Where the pixels fit already they stay as
    they are. Raises ValueError for another ``crop``.
    """
    if not 0 < crop <= 1:
        message = f"crop {crop} is no share of a side"
        raise ValueError(message)
    return _middle(image, min(image.shape[:2]) * crop, size)


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
    return _middle(image, min(size / ratio, height, width), size)


class PatchReader:
    """Reads patches one by one or by the batch, keeping the last few slides open.

    ``crop`` is the share of the short side that a patch takes of a plain image, as in ``fit``; a
    patch of a slide, or of an image whose µm/px are given, is what it is at ``mpp``. With a
    ``read_size`` above ``size`` more is read: the middle ``size`` is the very patch, around it lies
    what the slide or image has there, and where an image ends, its mirror image.

    A context manager. Safe to hand to another process and over a fork: handles are never shared.
    Raises ValueError for a ``read_size`` below ``size``.
    """

    def __init__(
        self,
        size: int,
        mpp: float | None,
        *,
        crop: float = 1.0,
        read_size: int | None = None,
        default_mpp: float | None = None,
        open_slides: int = 4,
    ) -> None:
        self._size, self._mpp, self._crop = size, mpp, crop
        self._read_size = size if read_size is None else read_size
        if self._read_size < size:
            message = f"read_size {read_size} is less than the {size} px of a patch"
            raise ValueError(message)
        self._default_mpp, self._limit = default_mpp, open_slides
        self._slides: OrderedDict[tuple[Path, float | None], SlideReader] = OrderedDict()
        self._pid = os.getpid()

    def read(self, patch: Patch) -> Pixels:
        """One patch, (R, R, 3) uint8, R being ``read_size`` where one was given, else ``size``.

        Raises InputError or OSError where it cannot be read.
        """
        if patch.kind == "slide":
            slide = self._slide(patch)
            x, y = self._corner(patch, slide)
            return slide.read_area(x, y, self._read_size, self._read_size, self._mpp)
        image = read_image(patch.path)
        if patch.slide_mpp is None or self._mpp is None:
            return self._of_image(image)
        try:
            return self._at_mpp(image, patch.slide_mpp / self._mpp)
        except InputError as error:
            message = f"{patch.path} {error}; give images of a larger field or leave its mpp away."
            raise InputError(message) from None

    def _of_image(self, image: Pixels) -> Pixels:
        width = self._width_within(self._size / self._crop)
        share = min(self._crop * width / self._size, 1.0)
        return _mirrored(fit(image, width, share), self._read_size)

    def _at_mpp(self, image: Pixels, ratio: float) -> Pixels:
        width = self._width_within(min(image.shape[:2]) * ratio)
        return _mirrored(fit_mpp(image, width, ratio), self._read_size)

    def _width_within(self, there: float) -> int:
        """How many of ``there`` pixels to read: as far beyond the patch on either side."""
        around = max(min(int(there + 1e-6), self._read_size) - self._size, 0)
        if self._size + around == self._read_size:
            return self._read_size
        return self._size + around // 2 * 2

    def _corner(self, patch: Patch, slide: SlideReader) -> tuple[float, float]:
        before = (self._read_size - self._size) // 2
        if not before:
            return patch.x, patch.y
        level0 = before if self._mpp is None else before * self._mpp / slide.require_mpp()
        return patch.x - level0, patch.y - level0

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
            corners = [self._corner(patch, slide) for patch in patches]
            return list(slide.read_patches(corners, self._read_size, self._mpp))
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


def _middle(image: Pixels, side: float, size: int) -> Pixels:
    """The middle ``side`` pixels of an image as (size, size, 3), cut where that is enough."""
    height, width = image.shape[:2]
    if abs(side - size) >= 0.5:
        left, top = (width - side) / 2, (height - side) / 2
        return _resample(image, (left, top, left + side, top + side), size)
    if (height, width) == (size, size):
        return image
    row, column = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(image[row : row + size, column : column + size])


def _mirrored(image: Pixels, size: int) -> Pixels:
    """An image (S, S, 3) with its mirror images around it, (size, size, 3)."""
    missing = size - len(image)
    if not missing:
        return image
    around = (missing // 2, missing - missing // 2)
    return np.pad(image, (around, around, (0, 0)), mode="symmetric")


def _resample(image: Pixels, box: tuple[float, float, float, float], size: int) -> Pixels:
    from PIL import Image

    picture = Image.fromarray(image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
