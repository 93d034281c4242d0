"""From one source to its patches: tile sets are read, slides are tiled on the fly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from patchknn.datasets.entries import Entry
from patchknn.datasets.patches import Patch
from patchknn.errors import InputError
from patchknn.slides.tileset import TileSet, read_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide

DEFAULT_MPP = 0.5
_SAME_MPP = 0.01


@dataclass(frozen=True)
class PatchSettings:
    """What decides which patches a source gives.

    ``size`` in pixels at ``mpp`` µm/px (None: 0.5 for slides); ``labels`` false leaves them
    away; ``slides_dir`` is where the slides of tile sets lie now; ``slide_mpp`` goes before a
    slide's own figure, ``default_mpp`` serves where it has none; ``image_mpp`` is that of plain
    images; ``min_tissue`` is a share.
    """

    size: int
    mpp: float | None
    labels: bool = True
    slides_dir: Path | None = None
    slide_mpp: float | None = None
    default_mpp: float | None = None
    image_mpp: float | None = None
    min_tissue: float = 0.5


def entry_patches(entry: Entry, settings: PatchSettings) -> list[Patch]:
    """All patches of one source, row by row; none of a slide without tissue.

    Raises InputError where the slide or tile set cannot be used.
    """
    if entry.kind == "image":
        patch = entry.image_patch()
        patches = [replace(patch, slide_mpp=patch.slide_mpp or settings.image_mpp)]
    elif entry.kind == "rows":
        mpp = entry.mpp or settings.slide_mpp
        patches = [replace(patch, slide_mpp=mpp) for patch in entry.rows]
    else:
        tileset = entry_tiles(entry, settings)
        patches = _patches_of(tileset, entry)
    if not settings.labels:
        patches = [replace(patch, label=None) for patch in patches]
    return patches


def entry_tiles(entry: Entry, settings: PatchSettings) -> TileSet:
    """The tile set of a slide or tile-set entry, its slide found where it lies now."""
    if entry.kind == "slide":
        mpp = settings.mpp or DEFAULT_MPP
        return tile_slide(
            entry.path,
            TilingSettings(size=settings.size, mpp=mpp, min_tissue=settings.min_tissue),
            name=entry.name,
            slide_mpp=entry.mpp or settings.slide_mpp,
            default_mpp=settings.default_mpp,
            annotations=entry.annotations,
            patient=entry.patient,
            label=entry.label,
        )
    tileset = read_tileset(entry.path)
    _check_fits(entry.path, tileset, settings)
    return replace(tileset, slide=_find_slide(entry.path, tileset, settings.slides_dir))


def _patches_of(tileset: TileSet, entry: Entry) -> list[Patch]:
    labels = tileset.labels or (None,) * len(tileset)
    return [
        Patch(
            tileset.name,
            tileset.slide,
            "slide",
            x,
            y,
            label,
            tileset.patient,
            entry.split,
            tileset.level0_mpp,
        )
        for (x, y), label in zip(tileset.coords.tolist(), labels, strict=True)
    ]


def _check_fits(path: Path, tileset: TileSet, settings: PatchSettings) -> None:
    mpp = settings.mpp
    same_mpp = mpp is None or math.isclose(tileset.target_mpp, mpp, rel_tol=_SAME_MPP)
    if tileset.patch_size != settings.size or not same_mpp:
        wanted = f"{settings.size} px" + (f" at {mpp:g} µm/px" if mpp is not None else "")
        message = (
            f"{path} holds tiles of {tileset.patch_size} px at {tileset.target_mpp:g} µm/px, and "
            f"{wanted} are asked for: tile again with these --size and --mpp."
        )
        raise InputError(message)


def _find_slide(path: Path, tileset: TileSet, slides_dir: Path | None) -> Path:
    if slides_dir is None:
        places = [tileset.slide]
    else:
        places = [slides_dir / tileset.name, slides_dir / tileset.slide.name]
    for place in places:
        if place.is_file():
            return place.absolute()
    message = (
        f"{places[0]}, the slide of {path}, is not there; give --slides DIR, where slides lie now."
    )
    raise InputError(message)
