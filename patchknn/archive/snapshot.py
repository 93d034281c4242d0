"""A snapshot of an archive: the shards that one manifest names, as one sequence of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.seen import Seen
from patchknn.archive.locate import (
    Identities,
    SourcePlace,
    Wanted,
    named_in,
    of_patients_in,
    wanted_rows,
    with_quickhash_in,
)
from patchknn.archive.manifest import Manifest
from patchknn.archive.manifests import read_manifest
from patchknn.archive.opening import open_shards
from patchknn.archive.rows import Source
from patchknn.archive.sealed import damage
from patchknn.archive.settings import ENCODER, ArchiveSettings, read_settings
from patchknn.archive.shard import Shard
from patchknn.archive.shards import Shards
from patchknn.archive.strings import name_key
from patchknn.bundle import Bundle, load_bundle

if TYPE_CHECKING:
    from patchknn.archive.index.cover import Cover
    from patchknn.archive.index.segment import Segment

Result = TypeVar("Result")
_NO_KEYS = np.zeros(0, np.uint64)
__all__ = ["Shard", "Snapshot", "StoredRow", "open_archive", "patch_id"]


class StoredRow(NamedTuple):
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
    """All rows that were published when one manifest was; later writers do not disturb it.

    Rows have the numbers 0 to ``n_rows``, those that were removed keep theirs; ``len`` counts
    what is there. ``searched`` are the shards that are searched: all, but in a ``share``.
    """

    def __init__(
        self,
        path: Path,
        settings: ArchiveSettings,
        manifest: Manifest,
        shards: Shards,
        seen: Seen,
        *,
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.path = path
        self.settings = settings
        self.manifest = manifest
        self.number = manifest.number
        self.classes = manifest.classes
        self.n_rows = manifest.row_numbers
        self.n_sources = manifest.sources
        self.shards = shards
        self.searched = shards if places is None else shards.select(places)
        self._places = places
        self._seen = seen
        self._cover: Cover | None = None

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def has_removed(self) -> bool:
        """Whether some of the row numbers are of rows that were removed."""
        return self.manifest.rows < self.n_rows

    @cached_property
    def _bundle(self) -> Bundle:
        bundle = load_bundle(self.path / ENCODER)
        if bundle.fingerprint != self.settings.encoder_fingerprint:
            raise damage(self.path, f"{bundle.directory} is not the encoder of the archive.")
        return bundle

    def bundle(self) -> Bundle:
        """The encoder's copy in the archive; DamageError where it is another."""
        return self._bundle

    @property
    def cover(self) -> Cover:
        """The index segments that serve this snapshot, and the shards without one.

        Opened when first asked for, in constant time and memory per segment.
        """
        if self._cover is None:
            from patchknn.archive.index.cover import choose_cover

            self._cover = choose_cover(
                self.path, self.settings, self.shards, self._seen, self._places
            )
        return self._cover

    def share(self, places: npt.NDArray[np.int64]) -> Snapshot:
        """The same snapshot, of which only the shards at ``places`` (m,), ascending, are searched.

        Rows keep their numbers. Its ``cover`` is of these shards: what holds others too is not
        used, so that shares without a shard in common have no row in common, whatever index each
        of their readers sees. Sources and rows are looked up among these shards alone.
        """
        own = (self.path, self.settings, self.manifest, self.shards, self._seen)
        return Snapshot(*own, places=places)

    def pass_over(self, segment: Segment, error: Exception) -> Cover:
        """Search on without a segment that was found damaged; the cover that is left."""
        from patchknn.archive.index.cover import segment_damaged

        cover = self.cover
        if segment in cover.segments:
            self._cover = cover.without(segment, segment_damaged(self.path, segment, error))
        return self.cover

    def shard_of(self, row: int) -> tuple[Shard, int]:
        """The shard of a row of the snapshot, and the row's number within it."""
        if not 0 <= row < self.n_rows:
            raise IndexError(row)
        shard = self.shards[int(np.searchsorted(self.shards.first_rows, row, side="right")) - 1]
        return shard, row - shard.first_row

    def shards_named(self, uuids: Iterable[str]) -> list[Shard]:
        """The shards with these uuids, in the order of the snapshot."""
        positions = self.manifest.shards.positions
        return [self.shards[at] for at in sorted(positions[uuid] for uuid in uuids)]

    def row(self, row: int) -> StoredRow:
        """One row in words."""
        shard, local = self.shard_of(row)
        only = np.array([local])
        source = int(shard.source_at(only)[0])
        label = int(shard.labels_at(only)[0])
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
            path=shard.source_paths(np.array([source]))[0],
            mpp=None if np.isnan(mpp) else mpp,
        )

    def locate(self, identity: str) -> int | None:
        """The row with a patch id (``name@x_y``, or ``name``), None where there is none."""
        row = int(self.locate_many([identity])[0])
        return None if row < 0 else row

    def locate_many(self, identities: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows (m,) int64 of patch ids, −1 where there is none."""
        parsed = Identities(identities)
        return parsed.chosen(self.rows_of(parsed.wanted))

    def rows_of(self, wanted: Wanted) -> npt.NDArray[np.int64]:
        """Rows (m,) int64 of patches by source name and position, −1 where there is none."""
        parts = self._ask(
            lambda segment: segment.locate(wanted),
            lambda shards: wanted_rows(shards, wanted),
        )
        unknown = self.n_rows
        rows = np.min([np.where(part < 0, unknown, part) for part in parts], axis=0)
        return np.where(rows == unknown, -1, rows)

    def sources_named(self, names: Sequence[str]) -> list[SourcePlace]:
        """(number of the name, shard, number of the source in it), for each of ``names``.

        A source lies in more than one shard where it was published in parts.
        """
        keys = np.array([name_key(name) for name in names], np.uint64)
        parts = self._ask(
            lambda segment: list(segment.find_sources(names, keys)),
            lambda shards: list(named_in(shards, names, keys)),
        )
        return [place for part in parts for place in part]

    def sources_by_quickhash(self, quickhashes: Sequence[bytes]) -> list[SourcePlace]:
        """The same for the contents (16 bytes) of sources."""
        parts = self._ask(
            lambda segment: list(segment.sources_by_quickhash(quickhashes)),
            lambda shards: list(with_quickhash_in(shards, quickhashes)),
        )
        return [place for part in parts for place in part]

    def sources_of_patients(self, patients: Sequence[str]) -> list[SourcePlace]:
        """The same for patients."""
        parts = self._ask(
            lambda segment: list(segment.sources_of_patients(patients)),
            lambda shards: list(of_patients_in(shards, patients)),
        )
        return [place for part in parts for place in part]

    def _ask(
        self,
        of_segment: Callable[[Segment], Result],
        of_shards: Callable[[Sequence[Shard]], Result],
    ) -> list[Result]:
        """What every segment says, and the shards that have none or a damaged one."""
        cover = self.cover
        results = [of_shards(cover.bare)]
        for segment in cover.segments:
            try:
                results.append(of_segment(segment))
            except ValueError as error:
                self.pass_over(segment, error)
                results.append(of_shards(segment.shards))
        return results

    def sources(self) -> Iterator[Source]:
        """Every source once, shard by shard."""
        every = [shard.source_keys[shard.live_sources()] for shard in self.shards]
        keys, counts = np.unique(np.concatenate([_NO_KEYS, *every]), return_counts=True)
        split, seen = set(keys[counts > 1].tolist()), set()
        for shard in self.shards:
            for number in shard.live_sources().tolist():
                record = shard.source_record(number)
                # Names are only remembered where a source lies in several shards.
                if int(shard.source_keys[number]) in split:
                    if record.name in seen:
                        continue
                    seen.add(record.name)
                yield record

    def find_source(self, name: str) -> Source | None:
        """The source with this name, None where there is none."""
        return self.find_sources([name]).get(name)

    def find_sources(self, names: Sequence[str]) -> dict[str, Source]:
        """The sources with these names, by name; names that the snapshot lacks are left out."""
        found: dict[str, Source] = {}
        for number, shard, source in self.sources_named(names):
            if names[number] not in found:
                found[names[number]] = shard.source_record(source)
        return found


def find_sources(shards: Sequence[Shard], names: Sequence[str]) -> dict[str, Source]:
    """Sources of these names in these shards, by name."""
    keys = np.array([name_key(name) for name in names], np.uint64)
    found: dict[str, Source] = {}
    for number, shard, source in named_in(shards, names, keys):
        if names[number] not in found:
            found[names[number]] = shard.source_record(source)
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
    known: Snapshot | None = None,
    manifest: Manifest | None = None,
    check: bool = True,
) -> Snapshot:
    """As ``open_archive``; the shards of a ``known`` snapshot are not looked at again.

    ``manifest`` is that of the snapshot where it has been read. Without ``check`` the files of
    shards that an index vouches for are not looked at: for those who need a few of thousands, and
    meet what is missing or too short when they use it.
    """
    if manifest is None:
        manifest = read_manifest(path, settings.archive_id, at)
    seen = Seen(path, manifest.shards)
    shards = open_shards(
        path,
        settings,
        manifest,
        known=None if known is None else known.shards.opened,
        witness=seen,
        check=check,
    )
    return Snapshot(path, settings, manifest, shards, seen)
