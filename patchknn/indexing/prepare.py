"""Before a unit is embedded: what of it the archive has already, and the patches of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from patchknn.archive.manifests import manifest_numbers
from patchknn.archive.rows import Source
from patchknn.archive.settings import read_settings
from patchknn.archive.snapshot import Snapshot, open_snapshot
from patchknn.datasets.entries import Entry
from patchknn.datasets.patches import Patch, Problem
from patchknn.datasets.tiles import PatchSettings, entry_patches
from patchknn.datasets.torch_data import explain
from patchknn.errors import ConflictError, PatchknnError, UsageError
from patchknn.indexing.sources import (
    conflict,
    describe_source,
    is_same_file,
    level0_mpp,
    pixel_file,
)
from patchknn.indexing.units import WorkUnit

Result = TypeVar("Result")
_FILES_AT_ONCE = 8


@dataclass(frozen=True)
class Looked:
    """What one look at the archive says of a unit: ``unit`` is what is left to do of it.

    ``replaced``: of its sources those that are archived with another content; ``elsewhose`` are
    sentences on those that are there under another patient.
    """

    unit: WorkUnit | None
    skipped: int
    problems: tuple[Problem, ...]
    replaced: int = 0
    elsewhose: tuple[str, ...] = ()


@dataclass
class Opened:
    """The patches to embed and their sources; ``empty`` sources gave none, and others problems."""

    patches: list[Patch] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    empty: int = 0
    problems: list[Problem] = field(default_factory=list)


class Preparation:
    """Looks units up in the newest snapshot of an archive."""

    def __init__(self, archive: Path, settings: PatchSettings, *, replace: bool = False) -> None:
        self._archive, self._settings, self._replace = archive, settings, replace
        self._archive_settings = read_settings(archive)
        self._snapshot: Snapshot = open_snapshot(archive, self._archive_settings)

    def newest(self) -> int:
        """The number of the newest manifest."""
        return manifest_numbers(self._archive)[-1]

    def look(self, unit: WorkUnit) -> Looked:
        """Sort a unit's sources: there with the same content, there with another, or to do."""
        self._refresh()
        published = self._snapshot.find_sources([entry.name for entry in unit.entries])
        there = [entry for entry in unit.entries if entry.name in published]
        compared = _for_each(there, lambda entry: self._is_same(entry, published[entry.name]))
        problems = tuple(result for result in compared if isinstance(result, Problem))
        others = {e.name for e, same in zip(there, compared, strict=True) if same is False}
        wanted = tuple(e for e in unit.entries if e.name not in published or e.name in others)
        left = replace(unit, entries=wanted) if wanted else None
        elsewhose = tuple(
            f"{entry.name} is of {known.patient or 'an unknown patient'} there and of "
            f"{entry.patient} here"
            for entry in there
            if entry.name not in others
            and entry.patient is not None
            and (known := published[entry.name]).patient != entry.patient
        )
        skipped = len(there) - len(problems) - len(others)
        return Looked(left, skipped, problems, len(others), elsewhose)

    def _is_same(self, entry: Entry, known: Source) -> bool:
        path = pixel_file(entry, self._settings)
        same = is_same_file(path, known)
        if not same and not self._replace:
            raise conflict(path, known, self._archive)
        return same

    def _refresh(self) -> None:
        if self.newest() == self._snapshot.number:
            return
        self._snapshot = open_snapshot(self._archive, self._archive_settings, known=self._snapshot)


def open_unit(looked: Looked, settings: PatchSettings) -> Opened:
    """Read, tile or list what is to be done; unusable sources become problems."""
    opened = Opened()
    entries = looked.unit.entries if looked.unit is not None else ()
    for result in _for_each(entries, lambda entry: _open(entry, settings)):
        if isinstance(result, Problem):
            opened.problems.append(result)
        elif result is None:
            opened.empty += 1
        else:
            source, patches = result
            opened.sources.append(source)
            opened.patches += patches
    return opened


def _open(entry: Entry, settings: PatchSettings) -> tuple[Source, list[Patch]] | None:
    patches = entry_patches(entry, settings)
    if not patches:
        return None
    first = patches[0]
    mpp = level0_mpp(entry, settings) if entry.kind == "rows" else first.slide_mpp
    source = describe_source(first.source, first.path, mpp=mpp, patient=first.patient)
    return source, patches


def _for_each(entries: Sequence[Entry], work: Callable[[Entry], Result]) -> list[Result | Problem]:
    """Results in order, an error as a Problem; many small files wait for the disk together."""

    def attempt(entry: Entry) -> Result | Problem:
        try:
            return work(entry)
        except (PatchknnError, OSError) as error:
            final = isinstance(error, ConflictError | UsageError)
            return Problem(entry.name, explain(error), final)

    if len(entries) < 2:
        return [attempt(entry) for entry in entries]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return list(pool.map(attempt, entries))
