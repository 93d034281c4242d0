"""A slide cut into tiles: the grid, the tissue in each tile, and its class."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchknn.errors import InputError, UsageError
from patchknn.files import quickhash
from patchknn.slides.readers import SlideReader, open_slide
from patchknn.slides.tileset import TileSet
from patchknn.slides.tissue import TISSUE_METHOD, TissueMask, find_tissue

FINER_TOLERANCE = 1.01
"""Scanners of one magnification differ by less than this; a target within it is resampled."""


@dataclass(frozen=True)
class TilingSettings:
    """What decides which tiles a slide gives.

    ``size`` and ``stride`` (None: ``size``) in pixels at ``mpp`` µm/px; ``min_tissue`` and
    ``min_cover`` as shares of a tile; ``labelled`` leaves out tiles without a class.
    """

    size: int = 224
    stride: int | None = None
    mpp: float = 0.5
    min_tissue: float = 0.5
    min_cover: float = 0.75
    allow_upsample: bool = False
    labelled: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or (self.stride is not None and self.stride < 1):
            message = "--size and --stride must be at least 1 pixel."
            raise UsageError(message)
        if not 0 <= self.min_tissue <= 1 or not 0 <= self.min_cover <= 1:
            message = "--min-tissue and --min-cover are shares from 0 to 1."
            raise UsageError(message)
        if not self.mpp > 0:
            message = f"--mpp {self.mpp:g} must be more than 0."
            raise UsageError(message)

    @property
    def step(self) -> int:
        """Pixels at ``mpp`` from one tile to the next."""
        return self.stride or self.size


def tile_slide(
    path: Path,
    settings: TilingSettings,
    *,
    name: str,
    slide_mpp: float | None = None,
    default_mpp: float | None = None,
    annotations: Path | None = None,
    patient: str | None = None,
    label: str | None = None,
    threads: int = 1,
) -> TileSet:
    """Cut a slide into tiles that hold enough tissue, row by row.

    N may be 0: a slide without tissue is no error. ``annotations`` (QuPath GeoJSON or ASAP XML)
    label each tile by the class that covers most of it, at least ``min_cover``; ``label`` all of
    them. ``threads`` read the slide where its tissue is looked for. Raises InputError where the
    slide or the annotations cannot be read, no mpp is known, or the target is finer than level 0.
    """
    with open_slide(path, slide_mpp=slide_mpp, default_mpp=default_mpp) as slide:
        check_target(slide, settings)
        notes = [slide.mpp_note] if slide.mpp_note else []
        level0_mpp = slide.require_mpp()
        ratio = settings.mpp / level0_mpp
        coords = tile_grid(slide.dimensions, settings.step * ratio)
        found = find_tissue(slide, threads=threads)
        tissue = tissue_shares(found, coords, settings.size * settings.mpp, level0_mpp)
        keep = tissue >= settings.min_tissue
        coords, tissue = coords[keep], tissue[keep]
        labels: tuple[str | None, ...] | None = None
        if annotations is not None:
            from patchknn.slides.annotations import read_annotations
            from patchknn.slides.cover import label_tiles

            regions = read_annotations(annotations)
            labels = label_tiles(regions, coords, settings.size * ratio, settings.min_cover)
        elif label is not None:
            labels = (label,) * len(coords)
        if settings.labelled:
            labels = labels or (None,) * len(coords)
            classed = np.array([name is not None for name in labels], dtype=bool)
            coords, tissue = coords[classed], tissue[classed]
            labels = tuple(name for name in labels if name is not None)
        level = slide.level_for(settings.mpp)
        magnification = slide.magnification or 10.0 / level0_mpp
        return TileSet(
            name=name,
            slide=path.absolute(),
            coords=coords,
            patch_size=settings.size,
            patch_size_level0=round(settings.size * ratio),
            patch_level=level,
            target_mpp=settings.mpp,
            level0_mpp=level0_mpp,
            level0_magnification=magnification,
            target_magnification=magnification / ratio,
            level0_width=slide.dimensions[0],
            level0_height=slide.dimensions[1],
            overlap=settings.size - settings.step,
            reader=slide.reader,
            reader_version=slide.reader_version,
            tissue_method=TISSUE_METHOD,
            custom_downsample=ratio / slide.level_downsamples[level],
            tissue=tissue,
            labels=labels,
            patient=patient,
            settings=resume_settings(
                path,
                settings,
                slide_mpp=slide_mpp,
                default_mpp=default_mpp,
                annotations=annotations,
                patient=patient,
                label=label,
            ),
            notes=tuple(notes),
        )


def check_target(slide: SlideReader, settings: TilingSettings) -> None:
    """Raise InputError where a slide has no mpp, or is coarser than the target."""
    own = slide.require_mpp()
    if own > settings.mpp * FINER_TOLERANCE and not settings.allow_upsample:
        message = (
            f"{slide.path.name} has {own:.4g} µm/px at its finest, coarser than the "
            f"{settings.mpp:g} asked for; give a larger --mpp, or --allow-upsample."
        )
        raise InputError(message)


def resume_settings(
    path: Path,
    settings: TilingSettings,
    *,
    slide_mpp: float | None,
    default_mpp: float | None,
    annotations: Path | None,
    patient: str | None,
    label: str | None,
) -> dict[str, Any]:
    """All that a tile set hangs on, as JSON: one of them changed, and it is made anew."""
    return {
        **asdict(settings),
        "stride": settings.step,
        "slide_mpp": slide_mpp,
        "default_mpp": default_mpp,
        "content": quickhash(path).hex(),
        "annotations": quickhash(annotations).hex() if annotations is not None else None,
        "patient": patient,
        "label": label,
        "tissue_method": TISSUE_METHOD,
    }


def tile_grid(dimensions: tuple[int, int], step: float) -> NDArray[np.int64]:
    """Level-0 corners (N, 2) of tiles every ``step`` pixels that begin inside, row by row."""
    xs, ys = (grid_axis(length, step) for length in dimensions)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    return grid.reshape(-1, 2)


def grid_axis(length: int, step: float) -> NDArray[np.int64]:
    """Where along one side of a slide, in level-0 pixels, the columns or rows of tiles begin."""
    corners: NDArray[np.int64] = np.rint(
        np.arange(max(int(np.ceil(length / step)), 1)) * step
    ).astype(np.int64)
    inside: NDArray[np.int64] = corners[corners < length]
    return inside


def tissue_shares(
    tissue: TissueMask, coords: NDArray[np.int64], tile_um: float, level0_mpp: float
) -> NDArray[np.float32]:
    """Share (N,) of each tile that is tissue; what lies off the slide is none.

    Exact for the mask's pixels, also where a tile's edge falls within one.
    """
    heights, widths = tissue.mask.shape
    # int32 counts every pixel of a mask: 46,000 × 46,000 of them are 370 mm at 8 µm/px.
    sums = np.zeros((heights + 1, widths + 1), np.int32)
    np.cumsum(tissue.mask, axis=1, out=sums[1:, 1:])
    np.cumsum(sums[1:], axis=0, out=sums[1:])
    side = tile_um / tissue.mpp
    left, top = (coords * (level0_mpp / tissue.mpp)).T
    area = (
        _at(sums, top + side, left + side)
        - _at(sums, top, left + side)
        - _at(sums, top + side, left)
        + _at(sums, top, left)
    )
    return np.asarray((area / side**2).clip(0, 1), dtype=np.float32)


def _at(sums: NDArray[np.int32], y: NDArray[np.float64], x: NDArray[np.float64]) -> Any:
    # Between pixel corners the sum over a rectangle is bilinear, so this is exact.
    y, x = y.clip(0, sums.shape[0] - 1), x.clip(0, sums.shape[1] - 1)
    row, column = (
        np.minimum(v.astype(int), n - 2) for v, n in ((y, sums.shape[0]), (x, sums.shape[1]))
    )
    down, right = y - row, x - column
    return (
        sums[row, column] * (1 - down) * (1 - right)
        + sums[row + 1, column] * down * (1 - right)
        + sums[row, column + 1] * (1 - down) * right
        + sums[row + 1, column + 1] * down * right
    )
