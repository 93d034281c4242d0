"""Before a unit is embedded: what of it the archive has already, and the patches of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from patchknn.archive.manifests import manifest_numbers
from patchknn.archive.rows import Source
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.datasets.entries import Entry
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.tiles import PatchSettings, entry_patches
from patchknn.datasets.torch_data import explain
from patchknn.errors import PatchknnError
from patchknn.indexing.sources import (
    conflict,
    describe_source,
    is_same_file,
    level0_mpp,
    pixel_file,
)
from patchknn.indexing.units import WorkUnit


@dataclass(frozen=True)
class Looked:
    """What one look at the archive says of a unit: ``unit`` is what is left to do of it."""

    unit: WorkUnit | None
    skipped: int
    problems: tuple[Problem, ...]


@dataclass
class Prepared:
    """The patches to embed and their sources; how many sources gave none, and why."""

    patches: list[Patch] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    skipped: int = 0
    empty: int = 0
    problems: list[Problem] = field(default_factory=list)


class Preparation:
    """Looks units up in the newest snapshot of an archive."""

    def __init__(self, archive: Path, settings: PatchSettings) -> None:
        self._archive, self._settings = archive, settings
        self._archive_settings = read_settings(archive)
        self._snapshot: Snapshot = open_snapshot(archive, self._archive_settings)

    def newest(self) -> int:
        """The number of the newest manifest."""
        return manifest_numbers(self._archive)[-1]

    def look(self, unit: WorkUnit) -> Looked:
        """Sort a unit's sources: there with the same content, there with another, or to do."""
        self._refresh()
        published = self._snapshot.find_sources([entry.name for entry in unit.entries])
        wanted: list[Entry] = []
        problems: list[Problem] = []
        skipped = 0
        for entry in unit.entries:
            known = published.get(entry.name)
            if known is None:
                wanted.append(entry)
                continue
            try:
                path = pixel_file(entry, self._settings)
                if not is_same_file(path, known):
                    raise conflict(path, known, self._archive)
                skipped += 1
            except (PatchknnError, OSError) as error:
                problems.append(Problem(entry.name, explain(error)))
        left = replace(unit, entries=tuple(wanted)) if wanted else None
        return Looked(left, skipped, tuple(problems))

    def open(self, looked: Looked) -> Prepared:
        """Read, tile or list what is to be done; unusable sources become problems."""
        prepared = Prepared(skipped=looked.skipped, problems=list(looked.problems))
        for entry in looked.unit.entries if looked.unit is not None else ():
            try:
                patches = entry_patches(entry, self._settings)
                if patches:
                    prepared.sources.append(self._describe(entry, patches[0]))
                    prepared.patches += patches
                else:
                    prepared.empty += 1
            except (PatchknnError, OSError) as error:
                prepared.problems.append(Problem(entry.name, explain(error)))
        return prepared

    def _describe(self, entry: Entry, patch: Patch) -> Source:
        mpp = level0_mpp(entry, self._settings) if entry.kind == "rows" else patch.slide_mpp
        return describe_source(patch.source, patch.path, mpp=mpp, patient=patch.patient)

    def _refresh(self) -> None:
        if self.newest() == self._snapshot.number:
            return
        known = {shard.uuid: shard.description for shard in self._snapshot.shards}
        self._snapshot = open_snapshot(self._archive, self._archive_settings, known=known)
