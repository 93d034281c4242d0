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
    images; ``min_tissue`` is a share. ``stride`` is from one tile of a slide to the next (None:
    ``size``, and of a tile set its own); ``allow_upsample`` lets ``mpp`` be finer than a slide.
    """

    size: int
    mpp: float | None
    labels: bool = True
    slides_dir: Path | None = None
    slide_mpp: float | None = None
    default_mpp: float | None = None
    image_mpp: float | None = None
    min_tissue: float = 0.5
    stride: int | None = None
    allow_upsample: bool = False

    @property
    def tiling(self) -> TilingSettings:
        """The same as it is said of slides that are tiled."""
        return TilingSettings(
            size=self.size,
            stride=self.stride,
            mpp=self.mpp or DEFAULT_MPP,
            min_tissue=self.min_tissue,
            allow_upsample=self.allow_upsample,
        )


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
        patches = tileset_patches(tileset, entry)
    if not settings.labels:
        patches = [replace(patch, label=None) for patch in patches]
    return patches


def entry_tiles(entry: Entry, settings: PatchSettings) -> TileSet:
    """The tile set of a slide or tile-set entry, its slide found where it lies now."""
    if entry.kind == "slide":
        return tile_slide(
            entry.path,
            settings.tiling,
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


def tileset_patches(tileset: TileSet, entry: Entry, part: slice = slice(None)) -> list[Patch]:
    """The patches of a tile set, or of a ``part`` of its tiles."""
    coords = tileset.coords[part].tolist()
    labels = (None,) * len(coords) if tileset.labels is None else tileset.labels[part]
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
        for (x, y), label in zip(coords, labels, strict=True)
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
    stride = tileset.patch_size - tileset.overlap
    if settings.stride not in {None, stride}:
        message = (
            f"{path} holds tiles every {stride} px, and every {settings.stride} px are asked for: "
            "tile again with this --stride, or leave it away."
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
