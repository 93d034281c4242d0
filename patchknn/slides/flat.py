"""TIFFs that are decoded whole, by tifffile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError, PatchknnError
from patchknn.slides.pixels import check_flat_size, to_eight_bits
from patchknn.slides.resolution import mpp_from_density, mpp_from_ome


@dataclass(frozen=True)
class FlatImage:
    """A decoded image (H, W, 3) uint8 and the µm/px that its file states, unchecked."""

    pixels: NDArray[np.uint8]
    mpp: float | None
    reader: str
    reader_version: str


def read_flat_tiff(path: Path) -> FlatImage:
    """Decode the first series of a TIFF, its finest level.

    RGB, RGBA, grey and palette pixels of 8 or 16 bits, interleaved or in three planes. Raises
    InputError for anything else, such as fluorescence channels.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            page = series.keyframe
            check_flat_size(path, (page.imagewidth, page.imagelength))
            check_complete(path, series.pages)
            pixels = _as_rgb(series.asarray(level=0), series.axes, page)
            return FlatImage(pixels, tiff_mpp(tiff), "tifffile", str(tifffile.__version__))
    except PatchknnError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  damaged files make tifffile raise nearly anything
        message = f"{path} is not an image: {str(error).rstrip('.')}."
        raise InputError(message) from None


def tiff_mpp(tiff: Any) -> float | None:
    """µm/px of an open tifffile.TiffFile: OME-XML first, then the resolution tags."""
    if tiff.is_ome and tiff.ome_metadata:
        mpp = mpp_from_ome(tiff.ome_metadata)
        if mpp is not None:
            return mpp
    tags = tiff.pages[0].tags
    unit = {2: "inch", 3: "centimeter"}.get(int(tags.valueof("ResolutionUnit", 2)))
    return mpp_from_density(
        _rational(tags.valueof("XResolution")), _rational(tags.valueof("YResolution")), unit
    )


def check_complete(path: Path, pages: Any) -> None:
    """Raise InputError where pixels of a TIFF would lie beyond the end of its file.

    Readers that map such a file would give black or white tiles without a word.
    """
    size = path.stat().st_size
    for page in pages:
        if page is None:
            continue
        counts = zip(page.dataoffsets, page.databytecounts, strict=False)
        needed = max((int(offset) + int(count) for offset, count in counts), default=0)
        if needed > size:
            message = f"{path} is truncated: it holds {size} bytes, its pixels reach to {needed}."
            raise InputError(message)


def _rational(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        return float(value[0]) / float(value[1]) if value[1] else None
    return float(value)


def _as_rgb(values: NDArray[Any], axes: str, page: Any) -> NDArray[np.uint8]:
    while values.shape[0] == 1 and axes not in {"YX", "YXS", "CYX", "SYX"}:
        values, axes = values[0], axes[1:]
    if axes in {"CYX", "SYX"} and values.shape[0] in {1, 3, 4}:
        values, axes = np.moveaxis(values, 0, 2), "YXS"
    if axes == "YX":
        values, axes = values[:, :, None], "YXS"
    if axes != "YXS" or values.shape[2] not in {1, 3, 4}:
        shape = " × ".join(str(length) for length in values.shape)
        message = f"its pixels are {shape} ({axes}), not RGB; export one plane as RGB"
        raise ValueError(message)
    if page.photometric.name == "PALETTE" and page.colormap is not None:
        values = np.moveaxis(page.colormap, 0, -1)[values[:, :, 0]]
    pixels = to_eight_bits(values)
    if page.photometric.name == "MINISWHITE":
        pixels = 255 - pixels
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if page.photometric.name == "SEPARATED":
        keep = 255 - pixels.astype(np.uint16)
        return (keep[:, :, :3] * keep[:, :, 3:] // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[:, :, :3])
