"""One shard as memory-mapped arrays, found by its JSON alone: neither zarr nor h5py is needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.checksums import array_checksum
from patchknn.archive.description import (
    SHARDS,
    ShardDescription,
    expected_arrays,
    parse_description,
)
from patchknn.archive.edits import NO_EDITS, ShardEdits
from patchknn.archive.file_checks import file_problem
from patchknn.archive.mapping import map_array
from patchknn.archive.paths import path_of
from patchknn.archive.rows import Rows, Source
from patchknn.archive.sealed import damage, read_sealed
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard_list import ShardEntry
from patchknn.archive.strings import OptionalStringTable, StringTable, offsets_fit
from patchknn.errors import DamageError


class VouchedShard(NamedTuple):
    """A shard whose JSON is known to be whole without having been read: it is when needed.

    ``classes`` are the snapshot's; the features lie in ``features_file`` below ``shards/``.
    """

    entry: ShardEntry
    settings: ArchiveSettings
    classes: tuple[str, ...]
    sources: int
    features_file: str
    features_offset: int

    @property
    def uuid(self) -> str:
        """As the manifest says."""
        return self.entry.uuid

    @property
    def rows(self) -> int:
        """As the manifest says."""
        return self.entry.rows


class Shard:
    """Rows ``first_row`` to ``first_row + n`` of a snapshot; arrays are mapped when first used.

    Rows that were removed keep their numbers; ``live_rows`` are the others.

    Every property that maps raises DamageError, naming the file, where values are out of range.
    """

    def __init__(
        self,
        path: Path,
        content: ShardDescription | VouchedShard,
        first_row: int,
        classes: tuple[str, ...],
        edits: ShardEdits | None = None,
    ) -> None:
        self.path = path
        self.content = content
        self.edits = edits or NO_EDITS
        self.uuid = content.uuid
        self.n = content.rows
        self.n_sources = content.sources
        self.first_row = first_row
        self._classes = classes

    def __len__(self) -> int:
        return self.n

    @cached_property
    def description(self) -> ShardDescription:
        """Where its arrays lie; read now where an index vouched for it."""
        content = self.content
        if isinstance(content, ShardDescription):
            return content
        description = described(self.path, content.entry, content.settings, content.classes)
        if description.sources != content.sources:
            file = self.path / SHARDS / f"{self.uuid}.json"
            remedy = f"patchknn archive index {self.path} --rebuild"
            message = f"The index is wrong about {file}: '{remedy}' mends it."
            raise DamageError(message)
        return description

    @cached_property
    def features(self) -> npt.NDArray[Any]:
        """(n, D) float16 or float32."""
        content = self.content
        if isinstance(content, VouchedShard):
            # A thousand shards are searched, and their descriptions not even read.
            expected = expected_arrays(content.settings, content.rows, content.sources)
            dtype, _ = expected["features"]
            shape = (content.rows, content.settings.feature_dim)
            return self._map(content.features_file, dtype, shape, content.features_offset)
        return self.array("features")

    @cached_property
    def codes(self) -> npt.NDArray[np.uint8]:
        """(n, K/8) uint8, in ascending order."""
        return self.array("codes")

    @cached_property
    def coords(self) -> npt.NDArray[np.int64]:
        """(n, 2) int64: level-0 x and y, −1 for plain images."""
        return self.array("coords")

    @cached_property
    def source(self) -> npt.NDArray[np.int32]:
        """(n,) int32 into the shard's source table."""
        values = self.array("source")
        self._check_range("source", values, 0, self.n_sources)
        return values

    @cached_property
    def labels(self) -> npt.NDArray[np.int32]:
        """(n,) int32 into the snapshot's classes, −1 for none, as changes left them."""
        values = self.array("label")
        own = self.description.classes
        self._check_range("label", values, -1, len(own))
        return self.edits.with_labels(self._in_snapshot_classes(values))

    def _in_snapshot_classes(self, values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        own = self.description.classes
        if own == self._classes[: len(own)]:
            return values
        # The last entry is where −1 points.
        numbers = [self._classes.index(name) for name in own] + [-1]
        mapped: npt.NDArray[np.int32] = np.array(numbers, np.int32)[values]
        return mapped

    def source_at(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """``source`` of rows (m,) of the shard; only these are read and checked."""
        values = self.array("source")[rows]
        self._check_range("source", values, 0, self.n_sources)
        return np.asarray(values, np.int32)

    def labels_at(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """``labels`` of rows (m,) of the shard; only these are read and checked."""
        values = self.array("label")[rows]
        own = self.description.classes
        self._check_range("label", values, -1, len(own))
        return self.edits.with_labels_at(rows, self._in_snapshot_classes(values))

    def live_rows(self) -> npt.NDArray[np.int64]:
        """Rows (m,) of the shard that no change removed, ascending."""
        if not len(self.edits.removed):
            return np.arange(self.n, dtype=np.int64)
        return np.flatnonzero(~self.edits.removed_mask).astype(np.int64, copy=False)

    def live_sources(self) -> npt.NDArray[np.int64]:
        """Numbers (m,) of the sources that have a row left in this shard, ascending."""
        numbers = np.arange(self.n_sources, dtype=np.int64)
        return np.setdiff1d(numbers, self.edits.dead_sources, assume_unique=True)

    def is_live(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of rows (m,) of the shard is there still."""
        if not len(self.edits.removed):
            return np.ones(len(rows), bool)
        mask: npt.NDArray[np.bool_] = ~self.edits.removed_mask[rows]
        return mask

    def has_live(self, sources: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
        """Whether each of sources (m,) has a row left in this shard."""
        return np.isin(sources, self.edits.dead_sources, invert=True)

    @cached_property
    def source_names(self) -> StringTable:
        """Names by number of source."""
        return self._strings("source_name")

    def source_paths(self, sources: npt.NDArray[np.integer[Any]]) -> list[str]:
        """Where sources (m,) were when they were embedded, as far as that is stored."""
        names, stored = self.source_names.take(sources), self._paths.take(sources)
        return [path_of(*one, self.path) for one in zip(stored, names, strict=True)]

    @cached_property
    def _paths(self) -> StringTable:
        return self._strings("source_path")

    @cached_property
    def _attributes(self) -> StringTable | None:
        is_stored = "source_attributes_bytes" in self.description.arrays
        return self._strings("source_attributes") if is_stored else None

    @cached_property
    def patients(self) -> OptionalStringTable:
        """Patients by number of source, None where unknown."""
        return OptionalStringTable(self._strings("source_patient"))

    @cached_property
    def source_keys(self) -> npt.NDArray[np.uint64]:
        """(S,) uint64 ``strings.name_key`` of the names, ascending."""
        return self.array("source_key")

    @cached_property
    def source_mpp(self) -> npt.NDArray[np.float64]:
        """(S,) µm/px at level 0, NaN where unknown."""
        return self.array("source_mpp")

    @cached_property
    def source_quickhashes(self) -> npt.NDArray[np.uint8]:
        """(S, 16) uint8, the quickhash of each source."""
        return self.array("source_quickhash")

    def source_record(self, number: int) -> Source:
        """All that is known of one source."""
        source = self._stored_source(number)
        return source._replace(path=path_of(source.path, source.name, self.path))

    def _stored_source(self, number: int) -> Source:
        mpp = float(self.source_mpp[number])
        return Source(
            name=self.source_names[number],
            path=self._paths[number],
            size=int(self.array("source_size")[number]),
            mtime_ns=int(self.array("source_mtime_ns")[number]),
            quickhash=self.source_quickhashes[number].tobytes(),
            mpp=None if np.isnan(mpp) else mpp,
            patient=self.patients[number],
            attributes=self._attributes[number] if self._attributes is not None else "",
        )

    def source_number(self, name: str, key: int) -> int | None:
        """The number of the source called ``name`` whose ``name_key`` is ``key``, or None."""
        keys = self.source_keys
        place = int(np.searchsorted(keys, np.uint64(key)))
        while place < len(keys) and int(keys[place]) == key:
            if self.source_names[place] == name:
                return place
            place += 1
        return None

    @property
    def has_thumbnails(self) -> bool:
        """Whether an encoded image is stored with each of its rows."""
        return "thumbnail_bytes" in self.description.arrays

    def thumbnail(self, row: int) -> bytes | None:
        """The encoded image of one row of this shard, None where none were stored."""
        return self._thumbnails.raw(row) if self.has_thumbnails else None

    def rows(self, *, codes: npt.NDArray[np.uint8] | None = None) -> Rows:
        """All of the shard as it lies there: by its own classes, paths as they are stored.

        Whoever writes them elsewhere gives them new checksums: DamageError where bytes no longer
        match the old ones. With ``codes`` (n, K/8) in place of its own nothing is compared.
        """
        if codes is None:
            self._check_bytes()
        thumbnails = None
        if self.has_thumbnails:
            thumbnails = tuple(self._thumbnails.raw(row) for row in range(self.n))
        return Rows(
            np.array(self.features),
            np.array(self.codes) if codes is None else codes,
            np.array(self.coords),
            np.array(self.source),
            np.array(self.array("label")),
            tuple(self._stored_source(number) for number in range(self.n_sources)),
            self.description.classes,
            thumbnails,
        )

    def _check_bytes(self) -> None:
        for name, place in self.description.arrays.items():
            if array_checksum(np.ascontiguousarray(self.array(name))) != place.checksum:
                problem = f"the bytes of {name} do not match their checksum"
                raise self._damaged(problem, name)

    def array(self, name: str) -> npt.NDArray[Any]:
        """One array mapped in place, unchecked; its name is one of ``expected_arrays``."""
        if name not in self._mapped:
            place = self.description.arrays[name]
            self._mapped[name] = self._map(place.file, place.dtype, place.shape, place.offset)
        return self._mapped[name]

    def _map(self, name: str, dtype: str, shape: tuple[int, ...], offset: int) -> npt.NDArray[Any]:
        file = f"{self.path}/{SHARDS}/{name}"
        try:
            return map_array(file, dtype, shape, offset)
        except (OSError, ValueError) as error:
            raise damage(self.path, f"{file}: it cannot be mapped ({error}).") from None

    @cached_property
    def _mapped(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    @cached_property
    def _thumbnails(self) -> StringTable:
        return self._strings("thumbnail")

    def _strings(self, name: str) -> StringTable:
        data, offsets = self.array(f"{name}_bytes"), self.array(f"{name}_offsets")
        if not offsets_fit(data, offsets):
            problem = f"{name}_offsets is out of range"
            raise self._damaged(problem, f"{name}_offsets")
        return StringTable(data, offsets)

    def _check_range(self, name: str, values: npt.NDArray[Any], low: int, high: int) -> None:
        if len(values) and (values.min() < low or values.max() >= high):
            problem = f"{name} holds a number out of range"
            raise self._damaged(problem, name)

    def _damaged(self, problem: str, name: str) -> DamageError:
        file = self.path / SHARDS / self.description.arrays[name].file
        return damage(self.path, f"{file}: {problem}.")


def read_description(path: Path, entry: ShardEntry, settings: ArchiveSettings) -> ShardDescription:
    """Read and check ``<uuid>.json`` of a shard that a manifest names.

    Raises DamageError where it is missing, changed, or not the one the manifest means.
    """
    file = path / SHARDS / f"{entry.uuid}.json"
    value = read_sealed(file, path)
    if value["checksum"] != entry.checksum:
        raise damage(path, f"{file} is not the file that the manifest names.")
    description = parse_description(value, file, path, settings)
    if description.rows != entry.rows or description.new_sources != entry.sources:
        raise damage(path, f"{file} and the manifest disagree on its rows.")
    return description


def described(
    path: Path, entry: ShardEntry, settings: ArchiveSettings, classes: tuple[str, ...]
) -> ShardDescription:
    """``read_description`` of a shard in a snapshot of these classes."""
    description = read_description(path, entry, settings)
    if not set(description.classes) <= set(classes):
        file = path / SHARDS / f"{entry.uuid}.json"
        raise damage(path, f"{file} names a class that the manifest lacks.")
    return description


def check_files(path: Path, description: ShardDescription) -> None:
    """Raise DamageError where a file of the shard is missing, no plain file, or of another size."""
    folder = f"{path}/{SHARDS}/"  # a thousand shards have files by the ten thousand
    for record in description.files:
        problem = file_problem(folder + record.file, record.size)
        if problem is not None:
            raise damage(path, problem)
