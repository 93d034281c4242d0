"""One segment of the index, opened: nothing is read until it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.index.codes import open_codes
from patchknn.archive.index.heads import Head
from patchknn.archive.index.layout import SegmentError, open_array
from patchknn.archive.index.lookups import Found, Lookups
from patchknn.archive.index.sketches import open_sketch
from patchknn.archive.locate import Wanted
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shards import Shards, firsts
from patchknn.hamming.code_table import CodeTable
from patchknn.hamming.feature_table import FeatureTable


class Segment:
    """The rows of some shards, in the order of their codes.

    ``shards`` are the snapshot's own, in the segment's order; ``first_rows`` (S + 1,) int64 where
    each begins; ``rows`` (n,) uint32 maps positions to segment rows, None where they are the same.
    What it holds on disk is checked as it is used: ValueError where a value is out of range.
    """

    def __init__(self, found: Head, shards: Shards, settings: ArchiveSettings) -> None:
        """Map its arrays; SegmentError where one is missing, too short, or ends wrongly."""
        folder, head = found.folder, found.head
        self.folder: Path = folder
        self.head = head
        self.shards = shards
        self.first_rows = firsts(shards.lengths)
        self.n_rows = int(self.first_rows[-1])
        sources = found.lines["sources"].clip(min=0)
        if (head.archive_id, head.bits) != (settings.archive_id, settings.bits):
            message = f"{folder} belongs to another archive."
            raise SegmentError(message)
        counts = (self.n_rows, int(sources.sum()))
        if (head.rows, head.sources) != counts or not 0 < head.codes <= head.rows:
            message = f"{folder} disagrees with its shards on their rows."
            raise SegmentError(message)
        self.code_arrays = open_codes(folder, head)
        self.rows: npt.NDArray[np.uint32] | None = None
        if len(self.shards) > 1:
            self.rows = open_array(folder, head, "rows", "<u4", (self.n_rows,))
        self.sketch = open_sketch(folder, head, settings.feature_dim)
        self._lookups = Lookups(folder, head, shards, sources)
        try:
            self.table = CodeTable(self.code_arrays)
        except ValueError as error:
            message = f"{folder} holds codes that cannot be searched ({error})."
            raise SegmentError(message) from None

    @cached_property
    def features(self) -> FeatureTable:
        """The features by position; DamageError where those of a shard cannot be mapped."""
        arrays = [shard.features for shard in self.shards]
        return FeatureTable(arrays, rows=self.rows, sketch=self.sketch)

    def segment_rows(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Segment rows (m,) at these positions; ValueError where the map is out of range."""
        if self.rows is None:
            return positions
        found = self.rows[positions].astype(np.int64)
        if len(found) and int(found.max()) >= self.n_rows:
            message = f"{self.folder}/rows.bin holds a row out of range"
            raise ValueError(message)
        return found

    def snapshot_rows(self, segment_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows (m,) of the snapshot that are these rows of the segment."""
        if len(self.shards) == 1:
            return segment_rows + int(self.shards.first_rows[0])
        owners = np.searchsorted(self.first_rows, segment_rows, side="right") - 1
        moved: npt.NDArray[np.int64] = segment_rows + self._shifts[owners]
        return moved

    @cached_property
    def _shifts(self) -> npt.NDArray[np.int64]:
        shifts: npt.NDArray[np.int64] = self.shards.first_rows - self.first_rows[:-1]
        return shifts

    @property
    def constant_shift(self) -> int | None:
        """What ``snapshot_rows`` adds to every row, None where shards lie in another order."""
        shifts = self._shifts
        return int(shifts[0]) if (shifts == shifts[0]).all() else None

    def locate(self, wanted: Wanted) -> npt.NDArray[np.int64]:
        """Rows (m,) of the snapshot that hold these patches, −1 where the segment has none."""
        return self._lookups.rows_of(wanted)

    def find_sources(self, names: Sequence[str], keys: npt.NDArray[np.uint64]) -> Found:
        """(number of the name, shard, number of the source) for each of these names it has.

        ``keys`` (m,) are their ``name_key``.
        """
        return self._lookups.named(names, keys)

    def sources_by_quickhash(self, quickhashes: Sequence[bytes]) -> Found:
        """(number, shard, number of the source) of the sources with these contents."""
        return self._lookups.with_quickhash(quickhashes)

    def sources_of_patients(self, patients: Sequence[str]) -> Found:
        """(number, shard, number of the source) of the sources of these patients."""
        return self._lookups.of_patients(patients)
