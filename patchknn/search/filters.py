"""Which rows may answer a query: labels, and what is too close to the query itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.listing import class_number
from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.archive.strings import name_key
from patchknn.errors import InputError
from patchknn.search.query import Query
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings

Mask = npt.NDArray[np.bool_]


class RowFilter:
    """The filters of one search; ``for_query`` binds them to a query.

    Raises UsageError where a wanted label is no class of the snapshot.
    """

    def __init__(self, snapshot: Snapshot, settings: SearchSettings, reader: RowReader) -> None:
        self._settings = settings
        self._reader = reader
        self._label_ids = _label_ids(snapshot, settings)

    def for_query(self, query: Query) -> QueryFilter:
        """The filter for one query.

        Raises InputError where patients are to be told apart and the query's is unknown.
        """
        if self._settings.exclude_same == "patient" and query.patient is None:
            message = (
                f"{query.name} has no known patient, so --exclude-same patient cannot leave that "
                "patient out: give --patient or a list with a patient column, or --exclude-same "
                "slide."
            )
            raise InputError(message)
        return QueryFilter(self._settings, self._label_ids, self._reader, query)


class QueryFilter:
    """Says which rows may answer one query; remembers what it found out of each shard."""

    def __init__(
        self,
        settings: SearchSettings,
        label_ids: npt.NDArray[np.int64] | None,
        reader: RowReader,
        query: Query,
    ) -> None:
        self._settings = settings
        self._label_ids = label_ids
        self._reader = reader
        self._query = query
        self._own: dict[str, RowNumbers] = {}

    def __call__(self, rows: RowNumbers) -> RowNumbers:
        """Those of rows (m,) that may answer, in the order given."""
        return rows[self.admits(rows)]

    def admits(self, rows: RowNumbers) -> Mask:
        """Whether each of rows (m,) may answer."""
        kept = np.ones(len(rows), bool)
        for shard, positions, local in self._reader.by_shard(rows):
            if self._label_ids is not None:
                kept[positions] &= np.isin(shard.labels[local], self._label_ids)
            elif self._settings.labelled_only:
                kept[positions] &= shard.labels[local] >= 0
            if self._settings.exclude_same != "none":
                kept[positions] &= ~self._is_same(shard, local)
        return kept

    def skip(self) -> RowNumbers | None:
        """The few rows (s,) that may not answer where all others may, else None."""
        settings = self._settings
        if settings.labels is not None or settings.labelled_only:
            return None
        if settings.exclude_same == "none":
            return np.zeros(0, np.int64)
        if settings.exclude_same != "self":
            return None
        found = [np.zeros(0, np.int64)]
        for shard in self._reader.snapshot.shards:
            own = self._own_of(shard)
            if len(own):
                local = np.flatnonzero(np.isin(shard.source, own)).astype(np.int64)
                found.append(local[self._is_same(shard, local)] + shard.first_row)
        return np.concatenate(found)

    def _is_same(self, shard: Shard, local: RowNumbers) -> Mask:
        """Rows of the query's own patch, slide or patient; each level holds the one before.

        A source is the query's own if it has its name, or its content under another name.
        """
        own = self._own_of(shard)
        if len(own) == 0:
            return np.zeros(len(local), bool)
        same: Mask = np.isin(shard.source[local], own)
        if self._settings.exclude_same == "self":
            same &= (shard.coords[local] == (self._query.x, self._query.y)).all(axis=1)
        return same

    def _own_of(self, shard: Shard) -> RowNumbers:
        if shard.uuid not in self._own:
            own = _own_sources(shard, self._query)
            if self._settings.exclude_same == "patient" and self._query.patient is not None:
                own = np.append(own, shard.patients.equal_to(self._query.patient))
            self._own[shard.uuid] = own
        return self._own[shard.uuid]


def _own_sources(shard: Shard, query: Query) -> RowNumbers:
    """Sources with the query's source name, or with its content under another name."""
    found = np.zeros(0, np.int64)
    if query.source is not None:
        number = shard.source_number(query.source, name_key(query.source))
        if number is not None:
            found = np.append(found, number)
    if query.quickhash is not None:
        wanted = np.frombuffer(query.quickhash, np.uint64)
        hashes = np.ascontiguousarray(shard.source_quickhashes).view(np.uint64)
        found = np.append(found, np.flatnonzero((hashes == wanted).all(axis=1)))
    return found


def _label_ids(snapshot: Snapshot, settings: SearchSettings) -> npt.NDArray[Any] | None:
    if settings.labels is None:
        return None
    return np.array([class_number(snapshot, label) for label in sorted(settings.labels)], np.int64)
