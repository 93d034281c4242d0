"""Opening slides, and reading patches of an exact resolution from them.

A patch is resampled from the nearest finer level, never taken from a level that is merely near:
asked for 0.5 µm/px, it has 0.5 µm/px.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError, PatchknnError
from patchknn.slides.flat import read_flat_tiff
from patchknn.slides.images import read_flat
from patchknn.slides.pixels import MAX_FLAT_PIXELS, require_file
from patchknn.slides.pyramids import FlatPyramid, OpenSlidePyramid, Pyramid, TiffSlidePyramid
from patchknn.slides.resolution import settle_mpp

if TYPE_CHECKING:
    from patchknn.slides.pyramids import Region

TIFF_SUFFIXES = frozenset({".tif", ".tiff", ".btf"})
SLIDE_SUFFIXES = TIFF_SUFFIXES | {
    ".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".dcm", ".czi",
    ".qptiff",
}  # fmt: skip

_SMALL_TIFF_PX = 2048
_LEVEL_TOLERANCE = 1.01
_NO_RESAMPLING_PX = 0.1
_MAX_BLOCK_PX = 1024
_MAX_RUN_PX = 1024


def is_slide(path: Path) -> bool:
    """Whether a file is a slide by its name; of TIFFs, by its header.

    A TIFF is a slide when it is tiled, longer than 2048 px on a side, or has several levels.
    """
    suffix = path.suffix.lower()
    if suffix not in TIFF_SUFFIXES:
        return suffix in SLIDE_SUFFIXES
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            large = max(page.imagewidth, page.imagelength) > _SMALL_TIFF_PX
            return bool(page.is_tiled or large or len(tiff.series[0].levels) > 1)
    except Exception:  # noqa: BLE001  whatever is wrong with it, reading it will say so
        return False


class SlideReader:
    """An open slide or flat image; a context manager.

    ``dimensions`` is the level-0 (width, height); ``mpp`` the level-0 µm/px or None; ``mpp_note``
    a sentence where the slide's own figure was taken as wrong. Not to be shared over a fork.
    """

    def __init__(
        self,
        path: Path,
        pyramid: Pyramid,
        *,
        slide_mpp: float | None = None,
        default_mpp: float | None = None,
    ) -> None:
        self.path = path
        self._pyramid = pyramid
        self.reader = pyramid.reader
        self.reader_version = pyramid.reader_version
        self.dimensions = pyramid.level_dimensions[0]
        self.level_downsamples = pyramid.level_downsamples
        self.magnification = pyramid.magnification
        self.mpp, self.mpp_note = settle_mpp(path.name, pyramid.mpp, slide_mpp, default_mpp)

    def require_mpp(self) -> float:
        """The level-0 µm/px; raises InputError naming the slide and the remedy without one."""
        if self.mpp is not None:
            return self.mpp
        reason = self.mpp_note or f"{self.path.name} does not say how many µm/px it has."
        hint = f" ({10 / self.magnification:g}?)" if self.magnification else ""
        message = f"{reason[:-1]}; give --slide-mpp or --default-mpp{hint}."
        raise InputError(message)

    def level_for(self, mpp: float | None) -> int:
        """The coarsest level that is no coarser than ``mpp`` µm/px; 0 where all are."""
        if mpp is None:
            return 0
        wanted = mpp / self.require_mpp() * _LEVEL_TOLERANCE
        fine = [i for i, down in enumerate(self.level_downsamples) if down <= wanted]
        return max(fine, key=lambda i: self.level_downsamples[i], default=0)

    def read_patch(self, x: int, y: int, size: int, mpp: float | None) -> NDArray[np.uint8]:
        """A square patch (size, size, 3) uint8 with its top left at level-0 pixel (x, y).

        It has exactly ``mpp`` µm/px (None: pixels of level 0), resampled with antialiasing from
        the nearest finer level; off-slide and transparent pixels are white. Raises InputError
        where the slide cannot be read or has no mpp.
        """
        return self.read_area(x, y, size, size, mpp)

    def read_patches(
        self, coords: Sequence[tuple[float, float]], size: int, mpp: float | None
    ) -> Iterator[NDArray[np.uint8]]:
        """Patches (size, size, 3) at level-0 corners, in the given order.

        Neighbours along a row are cut from one wide read: a reader that keeps no decoded tiles
        then decodes less often (OpenSlide keeps them, and gains little).
        """
        level = self.level_for(mpp)
        scale, downsample = self._scale(level, mpp), self.level_downsamples[level]
        for run in _runs_along_rows(coords, size * scale * downsample, _MAX_RUN_PX * downsample):
            boxes = [(x / downsample, y / downsample, size * scale, size * scale) for x, y in run]
            region, origin = self._read_around(level, boxes, scale, size)
            for box in boxes:
                yield _cut(region, origin, box, (size, size))

    def read_area(
        self, x: float, y: float, width: int, height: int, mpp: float | None
    ) -> NDArray[np.uint8]:
        """As ``read_patch``, for an area of (height, width) result pixels."""
        level = self.level_for(mpp)
        scale, downsample = self._scale(level, mpp), self.level_downsamples[level]
        box = (x / downsample, y / downsample, width * scale, height * scale)
        region, origin = self._read_around(level, [box], scale, max(width, height))
        return _cut(region, origin, box, (width, height))

    def read_overview(self, mpp: float, *, threads: int = 1) -> NDArray[np.uint8]:
        """The whole slide at ``mpp`` µm/px, read in blocks so that memory stays bounded.

        With ``threads`` > 1 blocks are read at the same time, where the reader can do that.
        """
        level = self.level_for(mpp)
        ratio = mpp / self.require_mpp()
        width, height = (max(math.ceil(length / ratio), 1) for length in self.dimensions)
        block = max(int(_MAX_BLOCK_PX / self._scale(level, mpp)), 1)
        overview = np.empty((height, width, 3), dtype=np.uint8)

        def fill(corner: tuple[int, int]) -> None:
            top, left = corner
            rows, columns = min(block, height - top), min(block, width - left)
            part = self.read_area(left * ratio, top * ratio, columns, rows, mpp)
            overview[top : top + rows, left : left + columns] = part

        corners = list(product(range(0, height, block), range(0, width, block)))
        if threads == 1 or len(corners) == 1 or not self._pyramid.reads_in_threads:
            for corner in corners:
                fill(corner)
            return overview
        pool = ThreadPoolExecutor(threads)
        try:
            for _ in pool.map(fill, corners):
                pass
        finally:  # after an error, or a signal, no more blocks are begun
            pool.shutdown(cancel_futures=True)
        return overview

    def close(self) -> None:
        """Let the file go."""
        self._pyramid.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scale(self, level: int, mpp: float | None) -> float:
        if mpp is None:
            return 1.0
        return mpp / self.require_mpp() / self.level_downsamples[level]

    def _read_around(
        self,
        level: int,
        boxes: Sequence[tuple[float, float, float, float]],
        scale: float,
        size: int,
    ) -> tuple[Region, tuple[int, int]]:
        # The antialiasing filter reaches ``scale`` pixels beyond a patch: with that margin a
        # patch has the same pixels whether it is read alone or cut from a row.
        margin = 0 if abs(scale - 1) * size < _NO_RESAMPLING_PX else _reach(scale)
        left = math.floor(min(box[0] for box in boxes)) - margin
        top = math.floor(min(box[1] for box in boxes)) - margin
        right = math.ceil(max(box[0] + box[2] for box in boxes)) + margin
        bottom = math.ceil(max(box[1] + box[3] for box in boxes)) + margin
        region = self._pyramid.read(level, left, top, right - left, bottom - top)
        return region, (left, top)


def open_slide(
    path: Path, *, slide_mpp: float | None = None, default_mpp: float | None = None
) -> SlideReader:
    """Open a slide or flat image: OpenSlide, else tiffslide, tifffile or Pillow.

    ``slide_mpp`` goes before the slide's own µm/px, ``default_mpp`` serves where it has none.
    Raises InputError for a file that is missing, empty, truncated or readable by none of them.
    """
    require_file(path)
    try:
        pyramid = _open_pyramid(path)
    except PatchknnError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  readers raise nearly anything on damaged files
        message = f"{path} is not a slide that can be opened: {str(error).rstrip('.')}."
        raise InputError(message) from None
    try:
        return SlideReader(path, pyramid, slide_mpp=slide_mpp, default_mpp=default_mpp)
    except PatchknnError:
        pyramid.close()
        raise


def _open_pyramid(path: Path) -> Pyramid:
    suffix = path.suffix.lower()
    if suffix not in SLIDE_SUFFIXES:
        return FlatPyramid(read_flat(path))
    import openslide

    try:
        pyramid = OpenSlidePyramid(path)
        if pyramid.is_generic and len(pyramid.level_downsamples) == 1:
            return _with_more_levels(path, pyramid)
        return pyramid
    except openslide.OpenSlideError as error:
        refusal = f"OpenSlide says {str(error).rstrip('.')!r}"
    try:
        return _open_tiff(path)
    except InputError as error:
        if "truncated" in str(error):
            raise
        message = f"{path} is not a slide that can be opened: {refusal}; {_reason(error, path)}"
        raise InputError(message) from None


def _open_tiff(path: Path) -> Pyramid:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            page = series.keyframe
            tiled = bool(page.is_tiled)
            flat = len(series.levels) == 1 and page.imagewidth * page.imagelength < MAX_FLAT_PIXELS
            readable = all(level.keyframe.decode is not None for level in series.levels)
    except Exception as error:  # noqa: BLE001  as above
        message = f"tifffile says {str(error).rstrip('.')!r}."
        raise InputError(message) from None
    if not readable:
        message = f"its compression {page.compression!r} is not known."
        raise InputError(message)
    if tiled and not flat:
        return TiffSlidePyramid(path)
    return FlatPyramid(read_flat_tiff(path))


def _with_more_levels(path: Path, pyramid: OpenSlidePyramid) -> Pyramid:
    # OpenSlide sees no levels in SubIFDs, where OME-TIFF keeps them.
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.series[0].levels) == 1:
                return pyramid
        richer = TiffSlidePyramid(path)
    except Exception:  # noqa: BLE001  then what OpenSlide sees serves
        return pyramid
    pyramid.close()
    return richer


def _reason(error: InputError, path: Path) -> str:
    text = str(error).removeprefix(f"{path} ")
    return text.replace("is not an image: ", "tifffile says: ")


def _runs_along_rows(
    coords: Sequence[tuple[float, float]], span: float, longest: float
) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for x, y in coords:
        near = run and y == run[-1][1] and 0 < x - run[-1][0] <= span + 1
        if run and not (near and x + span - run[0][0] <= longest):
            yield run
            run = []
        run.append((x, y))
    if run:
        yield run


def _cut(
    region: Region,
    origin: tuple[int, int],
    box: tuple[float, float, float, float],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    from PIL import Image

    left, top = box[0] - origin[0], box[1] - origin[1]
    if max(abs(box[2] - size[0]), abs(box[3] - size[1])) < _NO_RESAMPLING_PX:
        column, row = round(left), round(top)
        return np.array(_part(region, column, row, column + size[0], row + size[1]))
    # Pillow copies what it is given: no more of a wide row than this patch's own part.
    reach = _reach(max(box[2] / size[0], box[3] / size[1]))
    column, row = max(math.floor(left) - reach, 0), max(math.floor(top) - reach, 0)
    right, bottom = math.ceil(left + box[2]) + reach, math.ceil(top + box[3]) + reach
    part = _part(region, column, row, right, bottom)
    image = Image.fromarray(part) if isinstance(part, np.ndarray) else part
    left, top = left - column, top - row
    corners = (left, top, left + box[2], top + box[3])
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=corners))


def _part(region: Region, left: int, top: int, right: int, bottom: int) -> Region:
    if isinstance(region, np.ndarray):
        return region[top:bottom, left:right]
    right, bottom = min(right, region.width), min(bottom, region.height)
    whole = (left, top, right, bottom) == (0, 0, *region.size)
    return region if whole else region.crop((left, top, right, bottom))


def _reach(scale: float) -> int:
    return math.ceil(max(scale, 1)) + 1
