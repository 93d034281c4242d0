"""The mosaics of an archive's slides: as they are kept, or made and kept for the next time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from patchknn.archive.deleting import remove_whole
from patchknn.archive.index.names import is_segment_name, mosaics_folder
from patchknn.archive.index.tidying import DAY, tidy
from patchknn.archive.manifests import read_manifest
from patchknn.archive.mosaic_files import mosaics_key, open_mosaics, read_head, write_mosaics
from patchknn.archive.mosaics import Mosaics, mosaics_of
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import PatchknnError
from patchknn.wholeslide.mosaics.making import make_mosaics
from patchknn.wholeslide.mosaics.mosaic import MosaicSettings


class Kept(NamedTuple):
    """``mosaics``, and a sentence where they could not be kept."""

    mosaics: Mosaics
    problem: str | None = None


def mosaics_of_archive(
    snapshot: Snapshot,
    settings: MosaicSettings,
    *,
    threads: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Kept:
    """The mosaics of every slide of a snapshot.

    What is kept and damaged is made anew. Slides that did not change since mosaics were last kept
    with these settings are not looked at again. Whoever may not write into the archive has them in
    memory instead. ``advance`` is told of slides as they are made.
    """
    archive, stored = snapshot.path, snapshot.settings
    folder = mosaics_folder(archive)
    given = settings._asdict()
    key = mosaics_key(snapshot, given)
    present = (folder / key).is_dir()
    if present:
        with suppress(PatchknnError):
            return Kept(open_mosaics(folder / key, archive, stored))
    own = _folders_of(snapshot, settings)
    known = None
    for name in own:
        with suppress(PatchknnError):
            known = open_mosaics(folder / name, archive, stored)
            break
    try:
        made = make_mosaics(snapshot, settings, known=known, threads=threads, advance=advance)
        write_mosaics(archive, key, stored, given, made, replace=present)
        others = {entry.name for entry in folder.iterdir() if is_segment_name(entry.name)}
        tidy(folder, others - set(own) | {key}, DAY)
        mosaics = open_mosaics(folder / key, archive, stored)
        if read_manifest(archive, stored.archive_id).purged > snapshot.number:
            remove_whole(folder / key)  # they may know what was to be forgotten meanwhile
        return Kept(mosaics)
    except OSError as error:
        problem = (
            f"the mosaics of the slides cannot be kept in {folder} ({error.strerror or error}), "
            "and each search makes them anew."
        )
    made = make_mosaics(snapshot, settings, known=known, threads=threads)
    return Kept(mosaics_of(list(made), stored), problem)


def _folders_of(snapshot: Snapshot, settings: MosaicSettings) -> list[str]:
    """The folders of mosaics that were made with these settings, the newest first."""
    folder = mosaics_folder(snapshot.path)
    found = []
    with suppress(OSError):
        for entry in folder.iterdir():
            if is_segment_name(entry.name):
                with suppress(PatchknnError, OSError):
                    if read_head(entry, snapshot.path).settings == settings._asdict():
                        found.append((entry.stat().st_mtime_ns, entry.name))
    return [name for _, name in sorted(found, reverse=True)]
