"""What a command line names, one entry per source: images, slides, tile sets, rows of a manifest.

An entry is cheap: of a slide it knows the name, not the tiles. ``tiles.entry_patches`` opens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchknn.datasets.manifests import ManifestRow, read_manifest
from patchknn.datasets.patches import Patch, Problem
from patchknn.errors import InputError, PatchknnError
from patchknn.slides.listing import slides_below
from patchknn.slides.pixels import IMAGE_SUFFIXES
from patchknn.slides.readers import SLIDE_SUFFIXES, is_slide
from patchknn.slides.tileset import read_tileset
from patchknn.tables import TABLE_SUFFIXES

TILESET_SUFFIXES = (".h5", ".hdf5")
_USABLE = IMAGE_SUFFIXES | SLIDE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Entry:
    """One source.

    ``path`` is the image, slide or tile-set file. ``mpp`` is what was said of this source alone.
    ``rows`` are the patches of a slide that a manifest names (kind ``rows``).
    """

    name: str
    path: Path
    kind: Literal["image", "slide", "tileset", "rows"]
    label: str | None = None
    patient: str | None = None
    split: str | None = None
    mpp: float | None = None
    annotations: Path | None = None
    rows: tuple[Patch, ...] = ()

    def image_patch(self) -> Patch:
        """The patch of a plain image."""
        return Patch(
            self.name,
            self.path,
            "image",
            label=self.label,
            patient=self.patient,
            split=self.split,
            slide_mpp=self.mpp,
        )


def iter_entries(
    arguments: Iterable[str | Path],
    *,
    split: str | None = None,
    grouped: bool = True,
    exclude: Path | None = None,
) -> Iterator[Entry | Problem]:
    """The sources that files, folders and manifests name, in their order.

    ``split`` keeps those rows of manifests. With ``grouped`` each source comes once: the rows of
    one slide in a manifest as one entry, at the place of the first, and a file named twice at its
    first place. Without, each comes wherever it is named. The same name for two different files
    is a Problem that names both. Of folders, what lies under ``exclude`` is left out.
    """
    seen: dict[str, str] = {}
    for argument in arguments:
        for item in _of_argument(Path(argument), split, exclude, grouped=grouped):
            if isinstance(item, Problem):
                yield item
                continue
            repeated = item.name in seen
            checked = _checked(item, seen)
            if not (repeated and grouped) or isinstance(checked, Problem):
                yield checked
            elif item.kind == "rows":
                text = f"{item.name} is named in several places: put its rows into one manifest."
                yield Problem(item.name, text)


def _checked(entry: Entry, seen: dict[str, str]) -> Entry | Problem:
    path = str(entry.path)
    first = seen.setdefault(entry.name, path)
    if first != path:
        return Problem(
            entry.name,
            f"{path} and {first} are both called {entry.name!r}: give them names in a manifest.",
        )
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        shown = entry.name.encode(errors="surrogateescape").decode(errors="replace")
        return Problem(shown, f"{shown}: the name is not valid UTF-8; rename the file.")
    return entry


def _of_argument(
    path: Path, split: str | None, exclude: Path | None, *, grouped: bool
) -> Iterator[Entry | Problem]:
    try:
        if path.is_dir():
            yield from _of_folder(path, exclude)
        elif path.suffix.lower() in TABLE_SUFFIXES:
            yield from _of_manifest(path, split, grouped=grouped)
        else:
            yield _of_file(path.absolute(), path.name)
    except PatchknnError as error:
        yield Problem(str(path), str(error))
    except OSError as error:
        yield Problem(str(path), f"{error.filename or path}: {error.strerror or error}.")


def _of_file(path: Path, name: str, label: str | None = None) -> Entry | Problem:
    suffix = path.suffix.lower()
    if suffix in TILESET_SUFFIXES:
        return _of_tileset(path)
    if not path.exists():
        return Problem(name, f"{path} does not exist.")
    if suffix not in _USABLE:
        known = "an image, a slide, a tile set (.h5) or a manifest (.csv, .tsv, .parquet)"
        return Problem(name, f"{path} is not {known}.")
    if path.stat().st_size == 0:
        return Problem(name, f"{path} is an empty file.")
    if is_slide(path):
        return Entry(name, path, "slide")
    return Entry(name, path, "image", label=label)


def _of_tileset(path: Path) -> Entry | Problem:
    try:
        tileset = read_tileset(path)
    except PatchknnError as error:
        return Problem(str(path), str(error))
    return Entry(tileset.name, path, "tileset", patient=tileset.patient)


def _of_folder(folder: Path, exclude: Path | None) -> Iterator[Entry | Problem]:
    # A folder that 'tile' wrote may hold the tiles' images beside the tile sets: these name them.
    tilesets = any(path.suffix.lower() in TILESET_SUFFIXES for path in files_below(folder, exclude))
    found = False
    for path in files_below(folder, exclude):
        suffix = path.suffix.lower()
        if suffix in TILESET_SUFFIXES:
            found = True
            yield _of_tileset(path.absolute())
        elif not tilesets and suffix in _USABLE:
            found = True
            below = path.relative_to(folder)
            label = below.parts[0] if len(below.parts) > 1 else None
            yield _of_file(path.absolute(), below.as_posix(), label)
    if not found:
        yield Problem(str(folder), f"{folder} holds no image, slide or tile set.")


def files_below(folder: Path, exclude: Path | None = None) -> Iterator[Path]:
    """Files below a folder in the order of their names, links followed, hidden ones left out.

    So is what lies under ``exclude``.
    """
    visited = set() if exclude is None else {os.path.realpath(exclude)}
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if real in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real)
        here = Path(root)
        firsts: set[Path] | None = None
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = here / name
            if path.suffix.lower() == ".dcm":
                if firsts is None:  # every file of a DICOM series opens the whole slide
                    firsts = set(slides_below(here))
                if path not in firsts:
                    continue
            yield path


def _of_manifest(path: Path, split: str | None, *, grouped: bool) -> Iterator[Entry | Problem]:
    groups: dict[tuple[str, Path], list[Patch]] = {}
    pending: list[Entry | Problem | tuple[str, Path]] = []
    for row in read_manifest(path, split):
        if isinstance(row, Problem):
            item: Entry | Problem = row
        elif row.x is None or row.y is None:
            item = _whole_file(row)
        elif not grouped:
            item = _rows_entry([row.as_patch()])
        else:
            key = (row.name, row.path)
            if key not in groups:
                groups[key] = []
                pending.append(key)
            groups[key].append(row.as_patch())
            continue
        if groups:
            pending.append(item)  # must wait for the slides before it
        else:
            yield item
    for waiting in pending:
        yield _rows_entry(groups[waiting]) if isinstance(waiting, tuple) else waiting


def _rows_entry(patches: list[Patch]) -> Entry | Problem:
    first = patches[0]
    if not first.path.exists():
        return Problem(first.source, f"{first.path} does not exist.")
    for name in ("slide_mpp", "patient"):
        values = {getattr(patch, name) for patch in patches}
        if len(values) > 1:
            shown = " and ".join(str(value) for value in sorted(values, key=str)[:2])
            column = "mpp" if name == "slide_mpp" else name
            return Problem(first.source, f"{first.source} has more than one {column}: {shown}.")
    return Entry(
        first.source,
        first.path,
        "rows",
        patient=first.patient,
        mpp=first.slide_mpp,
        rows=tuple(patches),
    )


def _whole_file(row: ManifestRow) -> Entry | Problem:
    entry = _of_file(row.path, row.name)
    if isinstance(entry, Problem):
        return entry
    if entry.kind == "tileset":
        message = f"{row.path}: a manifest names images and slides; give tile sets by themselves."
        raise InputError(message)
    return Entry(
        row.name,
        row.path,
        entry.kind,
        label=row.label,
        patient=row.patient,
        split=row.split,
        mpp=row.mpp,
        annotations=row.annotations,
    )
