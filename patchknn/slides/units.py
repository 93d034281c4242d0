"""One slide as a unit of work: skipped where its tile set is there, made anew where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from patchknn.errors import ConflictError, InputError
from patchknn.slides.annotations import find_annotations
from patchknn.slides.export import ImageFormat, remove_images, write_images
from patchknn.slides.listing import SlideEntry
from patchknn.slides.outputs import MadeOf, output_files, refuse_another
from patchknn.slides.pixels import require_file
from patchknn.slides.readers import open_slide
from patchknn.slides.tileset import TileSet, read_tileset, write_tileset
from patchknn.slides.tiling import TilingSettings, check_target, resume_settings, tile_slide

TILESET_SUFFIX = ".h5"


@dataclass(frozen=True)
class SlideUnit:
    """A slide, where its tile set goes, and the settings; ``clash`` names what is wrong.

    ``threads`` is how many CPUs it may have for itself.
    """

    entry: SlideEntry
    output: Path
    settings: TilingSettings
    default_mpp: float | None = None
    annotations: Path | None = None
    images: ImageFormat | None = None
    clash: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class SlideResult:
    """What became of a slide; ``planned`` of a dry run stands for all that would be done."""

    status: Literal["done", "skipped", "empty", "planned"]
    tiles: int | None
    detail: str = ""


def plan_units(
    entries: Sequence[SlideEntry],
    folder: Path,
    settings: TilingSettings,
    *,
    slide_mpp: float | None = None,
    default_mpp: float | None = None,
    annotations: Path | None = None,
    images: ImageFormat | None = None,
    workers: int = 1,
) -> list[SlideUnit]:
    """Give each slide its file below ``folder``, as ``output_files`` has it.

    ``slide_mpp`` goes before a list's ``mpp``. Where there are fewer slides than ``workers``, each
    gets several threads.
    """
    units = []
    threads = max(workers // max(len(entries), 1), 1)
    for entry, output in zip(entries, output_files(entries, folder, TILESET_SUFFIX), strict=True):
        if slide_mpp is not None:
            entry = replace(entry, mpp=slide_mpp)  # noqa: PLW2901
        place = entry.annotations or annotations
        path, clash = output.path, output.clash
        units.append(SlideUnit(entry, path, settings, default_mpp, place, images, clash, threads))
    return units


def tile_unit(unit: SlideUnit, *, dry_run: bool = False) -> SlideResult:
    """Make the tile set of a slide, and its images where asked; skip what is there unchanged.

    The tile set is written last: a slide that was interrupted is done again. Raises InputError
    for a slide that cannot be used and ConflictError for one that would replace another's.
    """
    if unit.clash is not None:
        raise ConflictError(unit.clash)
    entry = unit.entry
    require_file(entry.path)
    annotations = None
    note = ""
    if unit.annotations is not None:
        annotations = find_annotations(unit.annotations, entry.name)
        if annotations is None:
            note = f"no annotations for it in {unit.annotations}"
    wanted = {
        **resume_settings(
            entry.path,
            unit.settings,
            slide_mpp=entry.mpp,
            default_mpp=unit.default_mpp,
            annotations=annotations,
            patient=entry.patient,
            label=entry.label,
        ),
        "images": unit.images,
    }
    earlier = _earlier(unit)
    if earlier is not None:
        refuse_another(
            unit.output,
            MadeOf(earlier.name, earlier.slide, earlier.settings.get("content")),
            MadeOf(entry.name, entry.path, str(wanted["content"])),
        )
        if earlier.settings == wanted:
            return _kept(unit, earlier, dry_run=dry_run)
    if dry_run:
        with open_slide(entry.path, slide_mpp=entry.mpp, default_mpp=unit.default_mpp) as slide:
            check_target(slide, unit.settings)
        detail = "settings changed" if earlier is not None else ""
        return SlideResult("planned", None, "; ".join(filter(None, (detail, note))))
    tileset = tile_slide(
        entry.path,
        unit.settings,
        name=entry.name,
        slide_mpp=entry.mpp,
        default_mpp=unit.default_mpp,
        annotations=annotations,
        patient=entry.patient,
        label=entry.label,
        threads=unit.threads,
    )
    tileset = replace(tileset, settings=wanted)
    image_folder = unit.output.with_suffix("")
    if unit.images is not None:
        write_images(tileset, image_folder, unit.images)
    elif earlier is not None and earlier.settings.get("images"):
        remove_images(image_folder)
    write_tileset(unit.output, tileset)
    notes = [*tileset.notes, *([note] if note else [])]
    if not len(tileset):
        return SlideResult("empty", 0, "; ".join([_nothing(unit), *notes]))
    return SlideResult("done", len(tileset), "; ".join(notes))


def _earlier(unit: SlideUnit) -> TileSet | None:
    if not unit.output.exists():
        return None
    try:
        return read_tileset(unit.output)
    except InputError as error:
        message = f"{unit.output} is in the way: {error} Delete it, or choose another -o."
        raise ConflictError(message) from None


def _nothing(unit: SlideUnit) -> str:
    tile = "labelled tile" if unit.settings.labelled else "tile"
    return f"no {tile} holds {100 * unit.settings.min_tissue:g}% tissue"


def _kept(unit: SlideUnit, earlier: TileSet, *, dry_run: bool) -> SlideResult:
    detail = "" if len(earlier) else _nothing(unit)
    if earlier.slide != unit.entry.path:
        detail = f"moved here from {earlier.slide}"
        if not dry_run:
            write_tileset(unit.output, replace(earlier, slide=unit.entry.path))
    return SlideResult("skipped", len(earlier), detail)
