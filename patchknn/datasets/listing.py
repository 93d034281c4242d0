"""Everything that may be given as DATA, SOURCES or QUERIES, as one stream of patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from patchknn.datasets.entries import TILESET_SUFFIXES, Entry, iter_entries
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.tiles import DEFAULT_MPP, PatchSettings, entry_patches
from patchknn.errors import PatchknnError
from patchknn.slides.tileset import read_tileset


def iter_patches(
    arguments: Iterable[str | Path],
    *,
    size: int,
    mpp: float | None,
    split: str | None = None,
    labels: bool = True,
    slides_dir: Path | None = None,
    slide_mpp: float | None = None,
    default_mpp: float | None = None,
    image_mpp: float | None = None,
    min_tissue: float = 0.5,
) -> Iterator[Patch | Problem]:
    """Patches of images, folders, manifests, slides (tiled on the fly) and tile sets, in order.

    A folder is an ImageFolder (the first sub-folder is the label of the images in it), holds
    slides, or holds tile sets. ``size`` in pixels at ``mpp`` µm/px. An input that cannot be used
    comes as a Problem, and the rest goes on; a slide without tissue gives nothing. ``arguments``
    may be a stream: each is worked on as it comes.
    """
    settings = PatchSettings(
        size=size,
        mpp=mpp,
        labels=labels,
        slides_dir=slides_dir,
        slide_mpp=slide_mpp,
        default_mpp=default_mpp,
        image_mpp=image_mpp,
        min_tissue=min_tissue,
    )
    for entry in iter_entries(arguments, split=split, grouped=False):
        if isinstance(entry, Problem):
            yield entry
            continue
        try:
            patches = entry_patches(entry, settings)
        except PatchknnError as error:
            yield Problem(entry.name, str(error))
            continue
        except OSError as error:
            yield Problem(entry.name, f"{error.filename or entry.path}: {error.strerror or error}.")
            continue
        yield from patches


def choose_mpp(arguments: Iterable[str | Path], given: float | None = None) -> float:
    """The target µm/px: as given, else that of the first tile set named, else 0.5."""
    if given is not None:
        return given
    for argument in map(Path, arguments):
        named = argument.is_dir() or argument.suffix.lower() in TILESET_SUFFIXES
        entry = next(iter_entries([argument]), None) if named else None
        if isinstance(entry, Entry) and entry.kind == "tileset":
            return read_tileset(entry.path).target_mpp
    return DEFAULT_MPP
