"""Whether a grid is there already: of this slide, and with these settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchknn.errors import ConflictError, InputError
from patchknn.files import quickhash
from patchknn.slides.outputs import MadeOf, refuse_another
from patchknn.slides.pixels import require_file
from patchknn.slides.tileset import TileSet
from patchknn.slides.tiling import resume_settings
from patchknn.wholeslide.grids.compress_settings import GridUnit
from patchknn.wholeslide.grids.grid import Grid, open_grid
from patchknn.wholeslide.grids.grid_writer import SUFFIXES


def wanted_settings(unit: GridUnit, tileset: TileSet | None) -> dict[str, Any]:
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
            patient=None,  # of no matter to the vectors, and kept beside them
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


def earlier_grid(unit: GridUnit, wanted: MadeOf) -> Grid | None:
    """The grid that is there of the same slide, in either format.

    What else has the name of the other format is none of our business. Raises ConflictError where
    another slide's grid, or no grid, is in its place.
    """
    earlier = None
    for path in (other_format(unit.output), unit.output):
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


def slide_of(unit: GridUnit, tileset: TileSet | None) -> Path:
    """The file that has the pixels; of a tile set, where its slide lies now."""
    return unit.entry.path if tileset is None else tileset.slide


def other_format(path: Path) -> Path:
    """Where the same slide's grid would be with the other ``--format``."""
    (suffix,) = set(SUFFIXES) - {path.suffix}
    return path.with_suffix(suffix)
