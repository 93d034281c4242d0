"""Is a source in the archive already, and with the same content?"""

from __future__ import annotations

from pathlib import Path

from patchknn.archive.rows import Source
from patchknn.datasets.entries import Entry
from patchknn.datasets.tiles import PatchSettings, entry_tiles
from patchknn.errors import ConflictError
from patchknn.files import quickhash, size_and_time
from patchknn.slides.pixels import require_file
from patchknn.slides.readers import open_slide


def pixel_file(entry: Entry, settings: PatchSettings) -> Path:
    """The file that holds an entry's pixels; InputError where a tile set's slide is not there."""
    return entry_tiles(entry, settings).slide if entry.kind == "tileset" else entry.path


def is_same_file(path: Path, published: Source) -> bool:
    """Whether a file is the content that was archived: of its size and time, or its quickhash.

    Raises InputError where there is no such file.
    """
    require_file(path)
    size, mtime_ns = size_and_time(path)
    if size != published.size:
        return False
    untouched = mtime_ns == published.mtime_ns
    return untouched or quickhash(path) == published.quickhash


def conflict(path: Path, published: Source, archive: Path) -> ConflictError:
    """The sentence for two files of one name."""
    message = (
        f"{path} has another content than {published.path}, which is {published.name!r} in "
        f"{archive}: give it another name in a manifest, or embed it with --replace."
    )
    return ConflictError(message)


def describe_source(
    name: str, path: Path, *, mpp: float | None = None, patient: str | None = None
) -> Source:
    """What the archive keeps of a source; ``mpp`` in µm/px at level 0."""
    require_file(path)
    size, mtime_ns = size_and_time(path)
    return Source(
        name=name,
        path=str(path.absolute()),
        size=size,
        mtime_ns=mtime_ns,
        quickhash=quickhash(path),
        mpp=mpp,
        patient=patient,
    )


def level0_mpp(entry: Entry, settings: PatchSettings) -> float | None:
    """µm/px at level 0 of a slide of which a manifest names patches."""
    given = entry.mpp or settings.slide_mpp
    with open_slide(entry.path, slide_mpp=given, default_mpp=settings.default_mpp) as slide:
        return slide.mpp
