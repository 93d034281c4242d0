"""One slide as a unit of work: its patches through the encoder, each vector to its place.

Neural image compression (Tellez 2020): the patches are those that ``embed`` would make, read and
encoded in the same way; what differs is where the vectors go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from patchknn.datasets.patches import Patch
from patchknn.datasets.tiles import entry_tiles, tileset_patches
from patchknn.errors import ConflictError, InputError
from patchknn.indexing.features import embed_batches
from patchknn.slides.outputs import MadeOf
from patchknn.slides.readers import open_slide
from patchknn.slides.tileset import TileSet
from patchknn.slides.tiling import check_target, grid_axis
from patchknn.wholeslide.grids.compress_settings import GridUnit
from patchknn.wholeslide.grids.grid import Grid, GridInfo, GridWriter
from patchknn.wholeslide.grids.grid_resume import (
    earlier_grid,
    other_format,
    slide_of,
    wanted_settings,
)
from patchknn.wholeslide.grids.grid_writer import copy_places, remove_grid, remove_leftovers


@dataclass(frozen=True)
class GridResult:
    """What became of a slide: ``patches`` of tissue in a grid of ``shape`` (H, W)."""

    status: Literal["done", "skipped", "empty", "planned"]
    patches: int | None = None
    shape: tuple[int, int] | None = None
    detail: str = ""


def compress_unit(
    unit: GridUnit, *, dry_run: bool = False, advance: Callable[[int], None] = lambda _: None
) -> GridResult:
    """Make the grid of a slide; skip what is there unchanged.

    ``advance`` is told of each batch that is done. A slide that was interrupted is done again:
    nothing of it is seen. Raises InputError for a slide that cannot be used as a whole,
    ConflictError for one that would replace another's.
    """
    if unit.clash is not None:
        raise ConflictError(unit.clash)
    patches, entry = unit.settings.patches, unit.entry
    tileset = entry_tiles(entry, patches) if entry.kind == "tileset" else None
    wanted = wanted_settings(unit, tileset)
    earlier = earlier_grid(unit, MadeOf(entry.name, slide_of(unit, tileset), wanted["content"]))
    if earlier is not None and earlier.info.settings == wanted:
        return _kept(unit, earlier, tileset, dry_run=dry_run)
    if dry_run:
        if tileset is None:
            mpp = entry.mpp or patches.slide_mpp
            with open_slide(entry.path, slide_mpp=mpp, default_mpp=patches.default_mpp) as slide:
                check_target(slide, patches.tiling)
        return GridResult("planned", detail="settings changed" if earlier is not None else "")
    tileset = tileset or entry_tiles(entry, patches)
    info = _info(unit, tileset, wanted)
    shape = (
        len(grid_axis(tileset.level0_height, info.level0_step)),
        len(grid_axis(tileset.level0_width, info.level0_step)),
    )
    remove_leftovers(unit.output)
    with GridWriter(
        unit.output, info, (unit.settings.encoder.averaged, unit.settings.feature_dim, *shape)
    ) as writer:
        _fill(writer, unit, tileset, _places(unit, info, tileset), advance)
        if earlier is not None and not unit.output.exists():  # it is of the other format
            remove_grid(other_format(unit.output))  # a slide never has two grids
    made_anew = ["made anew, as settings changed"] if earlier is not None else []
    nothing = [] if len(tileset) else [_nothing(unit)]
    detail = "; ".join([*made_anew, *nothing, *tileset.notes])
    return GridResult("done" if len(tileset) else "empty", len(tileset), shape, detail)


def _kept(unit: GridUnit, earlier: Grid, tileset: TileSet | None, *, dry_run: bool) -> GridResult:
    """What is there stays; who the patient is, and where the slide lies now, is put right."""
    count, shape = int(earlier.mask.sum()), (earlier.mask.shape[0], earlier.mask.shape[1])
    patient = unit.entry.patient if tileset is None else tileset.patient
    slide = str(slide_of(unit, tileset))
    notes = [] if count else [_nothing(unit)]
    if earlier.info.slide != slide:
        notes.append(f"moved here from {earlier.info.slide}")
    if not dry_run and (earlier.info.slide, earlier.info.patient) != (slide, patient):
        info = replace(earlier.info, slide=slide, patient=patient)
        with GridWriter(unit.output, info, (*earlier.features.shape[:2], *shape)) as writer:
            copy_places(earlier.features, earlier.mask, writer)
    return GridResult("skipped", count, shape, "; ".join(notes))


def _fill(
    writer: GridWriter,
    unit: GridUnit,
    tileset: TileSet,
    places: NDArray[np.int64],
    advance: Callable[[int], None],
) -> None:
    if not len(tileset):
        return
    settings = unit.settings
    entries, dim, size = settings.encoder.averaged, settings.feature_dim, settings.batch_size
    _, extractor = settings.encoder.load()
    # A small slide would wait longer for many processes to start than for a few to read it.
    readers = min(settings.reading.workers, len(tileset) // size)

    def batches() -> Iterator[list[Patch]]:
        for start in range(0, len(tileset), size):
            yield tileset_patches(tileset, unit.entry, slice(start, start + size))

    done = 0
    reading = replace(settings.reading, workers=readers)
    with closing(embed_batches(batches(), extractor, reading)) as results:
        for batch in results:
            error = next((sentence for sentence in batch.errors if sentence is not None), None)
            if error is not None:  # a grid with a hole would pass for one without tissue there
                raise InputError(error)
            vectors = batch.features.reshape(len(batch), entries, dim)
            try:
                writer.add(places[done : done + len(batch)], vectors)
            except ValueError as reason:
                message = f"{tileset.name}: {reason}, as grids are; use another encoder."
                raise InputError(message) from None
            done += len(batch)
            advance(len(batch))


def _info(unit: GridUnit, tileset: TileSet, wanted: dict[str, Any]) -> GridInfo:
    stride = tileset.patch_size - tileset.overlap
    return GridInfo(
        name=tileset.name,
        patch_px=tileset.patch_size,
        stride_px=stride,
        mpp=tileset.target_mpp,
        level0_mpp=tileset.level0_mpp,
        level0_step=stride * (tileset.target_mpp / tileset.level0_mpp),
        level0_size=(tileset.level0_width, tileset.level0_height),
        encoder=unit.settings.encoder.fingerprint,
        precision=unit.settings.encoder.precision,
        patient=tileset.patient,
        slide=str(tileset.slide),
        settings=wanted,
    )


def _places(unit: GridUnit, info: GridInfo, tileset: TileSet) -> NDArray[np.int64]:
    try:
        return info.places_of(tileset.coords)
    except ValueError as error:
        message = f"{unit.entry.path} makes no grid: its {error}; tile the slide again."
        raise InputError(message) from None


def _nothing(unit: GridUnit) -> str:
    if unit.entry.kind == "tileset":
        return f"{unit.entry.path} holds no tile"
    return f"no patch holds {100 * unit.settings.patches.min_tissue:g}% tissue"
