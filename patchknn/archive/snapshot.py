"""A snapshot of an archive: the shards that one manifest names, as one sequence of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.description import ShardDescription
from patchknn.archive.locate import locate_rows
from patchknn.archive.manifests import Manifest, read_manifest
from patchknn.archive.rows import Source
from patchknn.archive.sealed import damage
from patchknn.archive.settings import ENCODER, ArchiveSettings, read_settings
from patchknn.archive.shard import Shard, check_files, read_description
from patchknn.archive.strings import name_key
from patchknn.bundle import Bundle, load_bundle

__all__ = ["Shard", "Snapshot", "StoredRow", "open_archive", "patch_id"]


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row in words; x and y are level-0 pixels, −1 for plain images."""

    row: int
    id: str
    label: str | None
    source: str
    x: int
    y: int
    patient: str | None
    code: bytes
    path: str
    mpp: float | None


class Snapshot:
    """All rows that were published when one manifest was; later writers do not disturb it."""

    def __init__(
        self,
        path: Path,
        settings: ArchiveSettings,
        manifest: Manifest,
        descriptions: Sequence[ShardDescription],
    ) -> None:
        self.path = path
        self.settings = settings
        self.manifest = manifest
        self.number = manifest.number
        self.classes = manifest.classes
        self.n_rows = manifest.rows
        self.n_sources = manifest.sources
        ends = np.cumsum([0, *(description.rows for description in descriptions)])
        self._ends = ends[1:]
        self.shards = tuple(
            Shard(path, description, int(first), self.classes)
            for description, first in zip(descriptions, ends[:-1], strict=True)
        )

    def __len__(self) -> int:
        return self.n_rows

    @cached_property
    def _bundle(self) -> Bundle:
        bundle = load_bundle(self.path / ENCODER)
        if bundle.fingerprint != self.settings.encoder_fingerprint:
            raise damage(self.path, f"{bundle.directory} is not the encoder of the archive.")
        return bundle

    def bundle(self) -> Bundle:
        """The encoder's copy in the archive; DamageError where it is another."""
        return self._bundle

    def shard_of(self, row: int) -> tuple[Shard, int]:
        """The shard of a row of the snapshot, and the row's number within it."""
        if not 0 <= row < self.n_rows:
            raise IndexError(row)
        shard = self.shards[int(np.searchsorted(self._ends, row, side="right"))]
        return shard, row - shard.first_row

    def row(self, row: int) -> StoredRow:
        """One row in words."""
        shard, local = self.shard_of(row)
        source = int(shard.source[local])
        label = int(shard.labels[local])
        x, y = shard.coords[local].tolist()
        name = shard.source_names[source]
        mpp = float(shard.source_mpp[source])
        return StoredRow(
            row=row,
            id=patch_id(name, x, y),
            label=None if label < 0 else self.classes[label],
            source=name,
            x=x,
            y=y,
            patient=shard.patients[source],
            code=shard.codes[local].tobytes(),
            path=shard.source_paths[source],
            mpp=None if np.isnan(mpp) else mpp,
        )

    def locate(self, identity: str) -> int | None:
        """The row with a patch id (``name@x_y``, or ``name``), None where there is none."""
        row = int(self.locate_many([identity])[0])
        return None if row < 0 else row

    def locate_many(self, identities: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows (m,) int64 of patch ids, −1 where there is none."""
        return locate_rows(self.shards, identities)

    def sources(self) -> Iterator[Source]:
        """Every source once, shard by shard."""
        split: set[str] = set()
        for shard in self.shards:
            # Names are only remembered where a source lies in several shards.
            whole = shard.description.new_sources == shard.n_sources
            for number in range(shard.n_sources):
                record = shard.source_record(number)
                if whole or record.name not in split:
                    yield record
                split.add(record.name)

    def find_source(self, name: str) -> Source | None:
        """The source with this name, None where there is none."""
        return self.find_sources([name]).get(name)

    def find_sources(self, names: Sequence[str]) -> dict[str, Source]:
        """The sources with these names, by name; names that the snapshot lacks are left out."""
        return find_sources(self.shards, names)


def find_sources(shards: Sequence[Shard], names: Sequence[str]) -> dict[str, Source]:
    """Sources of these names in these shards, by name."""
    keys = np.array([name_key(name) for name in names], np.uint64)
    found: dict[str, Source] = {}
    for shard in shards:
        place = np.searchsorted(shard.source_keys, keys)
        place[place == shard.n_sources] = 0
        for hit in np.flatnonzero(shard.source_keys[place] == keys).tolist():
            number = shard.source_number(names[hit], int(keys[hit]))
            if number is not None and names[hit] not in found:
                found[names[hit]] = shard.source_record(number)
    return found


def patch_id(name: str, x: int, y: int) -> str:
    """``name@x_y``, or the name alone for a plain image (x and y −1)."""
    return name if x < 0 and y < 0 else f"{name}@{x}_{y}"


def open_archive(path: Path, at: int | None = None) -> Snapshot:
    """Open the newest snapshot of an archive, or number ``at``.

    Needs no right to write and reads small files only. Raises InputError where there is no
    archive or no such snapshot, DamageError where a file is missing, changed or of a wrong size.
    """
    return open_snapshot(path, read_settings(path), at=at)


def open_snapshot(
    path: Path,
    settings: ArchiveSettings,
    *,
    at: int | None = None,
    known: Mapping[str, ShardDescription] | None = None,
) -> Snapshot:
    """As ``open_archive``; shards that are ``known`` by their uuid are not read again."""
    manifest = read_manifest(path, settings.archive_id, at)
    descriptions = []
    for entry in manifest.shards:
        description = known.get(entry.uuid) if known else None
        if description is None:
            description = read_description(path, entry, settings)
            if not set(description.classes) <= set(manifest.classes):
                file = f"{path / 'shards' / entry.uuid}.json"
                raise damage(path, f"{file} names a class that the manifest lacks.")
            check_files(path, description)
        descriptions.append(description)
    return Snapshot(path, settings, manifest, descriptions)
