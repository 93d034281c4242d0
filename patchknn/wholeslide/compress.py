"""One slide as a unit of work: its patches through the encoder, each vector to its place.

Neural image compression (Tellez 2020): the patches are those that ``embed`` would make, read and
encoded in the same way; what differs is where the vectors go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from patchknn.datasets.entries import Entry
from patchknn.datasets.patches import Patch
from patchknn.datasets.tiles import PatchSettings, entry_tiles, tileset_patches
from patchknn.errors import ConflictError, InputError
from patchknn.files import quickhash
from patchknn.indexing.features import embed_batches
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.remote import RemoteEncoder
from patchknn.slides.outputs import MadeOf, refuse_another
from patchknn.slides.pixels import require_file
from patchknn.slides.readers import open_slide
from patchknn.slides.tileset import TileSet
from patchknn.slides.tiling import check_target, grid_axis, resume_settings
from patchknn.wholeslide.grid import Grid, GridInfo, GridWriter, open_grid
from patchknn.wholeslide.grid_writer import SUFFIXES, remove_grid, remove_leftovers


@dataclass(frozen=True)
class CompressSettings:
    """How slides become grids; ``feature_dim`` is the encoder's D.

    ``encoder`` gives one vector of a patch, or ``apart`` those of its eight orientations.
    """

    patches: PatchSettings
    reading: ReadSettings
    encoder: RemoteEncoder
    feature_dim: int
    batch_size: int = 64


@dataclass(frozen=True)
class GridUnit:
    """A slide or tile set, where its grid goes, and how; ``clash`` says why it must not."""

    entry: Entry
    output: Path
    settings: CompressSettings
    clash: str | None = None


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
    wanted = _wanted(unit, tileset)
    earlier = _earlier(unit, MadeOf(entry.name, _slide_of(entry, tileset), wanted["content"]))
    if earlier is not None and earlier.info.settings == wanted:
        count = int(earlier.mask.sum())
        shape = earlier.mask.shape
        return GridResult("skipped", count, (shape[0], shape[1]), "" if count else _nothing(unit))
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
        if earlier is not None and not unit.output.exists():
            remove_grid(_other(unit.output))  # of the other format: never are there two of a slide
    detail = "; ".join([*([] if len(tileset) else [_nothing(unit)]), *tileset.notes])
    return GridResult("done" if len(tileset) else "empty", len(tileset), shape, detail)


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

    def batches() -> Iterator[list[Patch]]:
        for start in range(0, len(tileset), size):
            yield tileset_patches(tileset, unit.entry, slice(start, start + size))

    done = 0
    with closing(embed_batches(batches(), extractor, settings.reading)) as results:
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


def _wanted(unit: GridUnit, tileset: TileSet | None) -> dict[str, Any]:
    """All that a grid hangs on, as JSON: one of them changed, and it is made anew."""
    settings, entry = unit.settings, unit.entry
    if tileset is not None:
        content = quickhash(tileset.slide).hex()
        tiles: dict[str, Any] = {
            "size": tileset.patch_size,
            "stride": tileset.patch_size - tileset.overlap,
            "mpp": tileset.target_mpp,
            "level0_mpp": tileset.level0_mpp,
            "coords": hashlib.blake2b(tileset.coords.tobytes(), digest_size=16).hexdigest(),
        }
    else:
        require_file(entry.path)
        tiles = resume_settings(
            entry.path,
            settings.patches.tiling,
            slide_mpp=entry.mpp or settings.patches.slide_mpp,
            default_mpp=settings.patches.default_mpp,
            annotations=None,
            patient=entry.patient,
            label=None,
        )
        content = tiles.pop("content")
    encoder = settings.encoder
    wanted = {
        "content": content,
        "tiles": tiles,
        "encoder": encoder.fingerprint,
        "precision": encoder.precision,
        "augment": encoder.averaged,
    }
    same: dict[str, Any] = json.loads(json.dumps(wanted))
    return same


def _earlier(unit: GridUnit, wanted: MadeOf) -> Grid | None:
    """The grid that is there of the same slide, in either format.

    What else has the name of the other format is none of our business.
    """
    earlier = None
    for path in (_other(unit.output), unit.output):
        if not path.exists():
            continue
        try:
            earlier = open_grid(path)
        except InputError as error:
            if path != unit.output:
                continue
            message = f"{path} is in the way: {error} Delete it, or choose another -o."
            raise ConflictError(message) from None
        info = earlier.info
        slide = None if info.slide is None else Path(info.slide)
        refuse_another(path, MadeOf(info.name, slide, info.settings.get("content")), wanted)
    if earlier is not None and not unit.output.exists():
        # Of the other format: there is something to take away, and all to do.
        return replace(earlier, info=replace(earlier.info, settings={}))
    return earlier


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


def _slide_of(entry: Entry, tileset: TileSet | None) -> Path:
    return entry.path if tileset is None else tileset.slide


def _other(path: Path) -> Path:
    (suffix,) = set(SUFFIXES) - {path.suffix}
    return path.with_suffix(suffix)


def _nothing(unit: GridUnit) -> str:
    if unit.entry.kind == "tileset":
        return f"{unit.entry.path} holds no tile"
    return f"no patch holds {100 * unit.settings.patches.min_tissue:g}% tissue"
