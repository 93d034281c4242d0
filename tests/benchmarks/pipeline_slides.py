"""The slides that tiling and embedding are measured on, made once in a cache folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import tifffile

from patchknn.simulate.slides import SlideSettings, simulate_slides

MPP = 0.25  # of the synthetic slides; patches are of 0.5, as every user of this has them
_REAL = "wsi/CMU-1-Small-Region.svs"


def simulated(cache: Path, size_px: int, slides: int = 1) -> list[Path]:
    """Slides of ``simulate slides --size-px``, each level half of the one before."""
    folder = cache / f"simulated-{size_px}-{slides}"
    if not folder.exists():
        unfinished = cache / f"{folder.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        settings = SlideSettings(slides, 1, size_px, MPP)
        for _ in simulate_slides(unfinished, settings, workers=2):
            pass
        unfinished.rename(folder)
    return sorted(folder.glob("*.tiff"))


def as_scanned(slide: Path) -> Path:
    """The same slide with a quarter of the resolution per level, as most scanners write them."""
    path = slide.with_name(f"{slide.stem}-by-four.tif")
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        with tifffile.TiffFile(slide) as tiff, tifffile.TiffWriter(unfinished, bigtiff=True) as out:
            for page in tiff.pages[::2]:
                out.write(
                    _encoded_tiles(tiff, page),
                    shape=page.shape,
                    dtype=page.dtype,
                    tile=(page.tilelength, page.tilewidth),
                    photometric="ycbcr",
                    subsampling=page.subsampling,
                    compression="jpeg",
                    subfiletype=1 if page is not tiff.pages[0] else 0,
                    resolution=page.get_resolution(),
                    resolutionunit="CENTIMETER",
                    metadata=None,
                )
        unfinished.rename(path)
    return path


def _encoded_tiles(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> Iterator[bytes]:
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        tiff.filehandle.seek(offset)
        yield tiff.filehandle.read(count)


def real() -> Path | None:
    """The real slide, where ``PATCHKNN_DATA`` has it."""
    folder = os.environ.get("PATCHKNN_DATA")
    path = Path(folder) / _REAL if folder else None
    return path if path is not None and path.is_file() else None
