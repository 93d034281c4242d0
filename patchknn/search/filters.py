"""Which rows may answer a query: labels, records, and what is too close to the query itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.listing import class_number
from patchknn.archive.locate import SourcePlace, Wanted
from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.archive.strings import name_key
from patchknn.errors import InputError
from patchknn.search.own_rows import OwnRows
from patchknn.search.query import Query
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings

Mask = npt.NDArray[np.bool_]
OwnSources = dict[Shard, set[int]]
_NONE = np.zeros(0, np.int64)
_NO_FEATURE = np.zeros(0)


class RowFilter:
    """The filters of one search; ``for_queries`` binds them to queries.

    Raises UsageError where a wanted label is no class of the snapshot, or ``where`` no expression
    over its records.
    """

    def __init__(self, snapshot: Snapshot, settings: SearchSettings, reader: RowReader) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._reader = reader
        self._label_ids = _label_ids(snapshot, settings)
        self._own_rows = OwnRows(snapshot.n_rows)
        self._where: Callable[[Shard], Mask] | None = None
        if settings.where is not None:
            from patchknn.archive.records_where import SourceFilter

            self._where = SourceFilter(snapshot, settings.where)

    def check(self, query: Query) -> None:
        """Raise InputError where patients are to be told apart and the query's is unknown."""
        if self._settings.exclude_same == "patient" and query.patient is None:
            message = (
                f"{query.name} has no known patient, so --exclude-same patient cannot leave that "
                "patient out: give --patient or a list with a patient column, or --exclude-same "
                "slide."
            )
            raise InputError(message)

    def admits(self, rows: RowNumbers) -> Mask:
        """Whether each of rows (m,) may answer a query that is of another patch."""
        nobody = Query("", _NO_FEATURE)
        own: OwnSources = {}
        parts = (self._settings, self._reader, self._label_ids, self._where, nobody, own, None)
        return QueryFilter(*parts).admits(rows)

    def for_query(self, query: Query) -> QueryFilter:
        """The filter for one query. Raises InputError as ``check``."""
        self.check(query)
        return self.for_queries([query])[0]

    def for_queries(self, queries: Sequence[Query]) -> list[QueryFilter]:
        """The filters for queries that ``check`` lets through, found out together."""
        own = self.own_sources(queries)
        skips: Sequence[RowNumbers | None] = [None] * len(queries)
        by_label = self._label_ids is not None or self._settings.labelled_only
        looks_at_rows = by_label or self._where is not None
        if not looks_at_rows:
            if self._settings.exclude_same == "none":
                skips = [_NONE] * len(queries)
            elif self._settings.exclude_same == "self":
                skips = self._own_patches(queries, own)
            else:
                skips = self._own_rows.of_each(own)
        return [
            QueryFilter(self._settings, self._reader, self._label_ids, self._where, *one)
            for one in zip(queries, own, skips, strict=True)
        ]

    def own_sources(self, queries: Sequence[Query]) -> list[OwnSources]:
        """The sources with a query's name, or with its content under another name.

        Where patients are left out, those of its patient too.
        """
        own: list[OwnSources] = [{} for _ in queries]
        if self._settings.exclude_same == "none":
            return own
        self._collect(own, [query.source for query in queries], self._snapshot.sources_named)
        contents = [query.quickhash for query in queries]
        self._collect(own, contents, self._snapshot.sources_by_quickhash)
        if self._settings.exclude_same == "patient":
            patients = [query.patient for query in queries]
            self._collect(own, patients, self._snapshot.sources_of_patients)
        return own

    def _collect(
        self,
        own: list[OwnSources],
        values: Sequence[Any],
        find: Callable[[list[Any]], Iterable[SourcePlace]],
    ) -> None:
        wanted = {value: number for number, value in enumerate(dict.fromkeys(values)) if value}
        if not wanted:
            return
        askers: dict[Any, list[int]] = {}
        for query, value in enumerate(values):
            askers.setdefault(value, []).append(query)
        given = list(wanted)
        for number, shard, source in find(given):
            for query in askers[given[number]]:
                own[query].setdefault(shard, set()).add(source)

    def _own_patches(self, queries: Sequence[Query], own: Sequence[OwnSources]) -> list[RowNumbers]:
        """The rows that are the queries' own patches."""
        names: list[str] = []
        coords: list[tuple[int, int]] = []
        owners: list[int] = []
        for number, (query, sources) in enumerate(zip(queries, own, strict=True)):
            found = {shard.source_names[one] for shard, some in sources.items() for one in some}
            names += found
            coords += [(query.x, query.y)] * len(found)
            owners += [number] * len(found)
        rows: list[list[int]] = [[] for _ in queries]
        if names:
            keys = np.array([name_key(name) for name in names], np.uint64)
            places = np.array(coords, np.int64).reshape(-1, 2)
            found_rows = self._snapshot.rows_of(Wanted(names, keys, places)).tolist()
            for owner, row in zip(owners, found_rows, strict=True):
                if row >= 0:
                    rows[owner].append(row)
        return [np.array(sorted(some), np.int64) for some in rows]


class QueryFilter(NamedTuple):
    """Says which rows may answer one query.

    ``where`` says of each source of a shard (S,) whether its rows may answer. ``own``: the sources
    of each shard (numbers) that are the query's own. ``skip``: the few rows (s,) that may not
    answer where all others may, None where each must be looked at; rows that were removed are not
    among them.
    """

    settings: SearchSettings
    reader: RowReader
    label_ids: npt.NDArray[np.int64] | None
    where: Callable[[Shard], Mask] | None
    query: Query
    own: OwnSources
    skip: RowNumbers | None

    def __call__(self, rows: RowNumbers) -> RowNumbers:
        """Those of rows (m,) that may answer, in the order given."""
        return rows[self.admits(rows)]

    def admits(self, rows: RowNumbers) -> Mask:
        """Whether each of rows (m,) may answer."""
        kept = np.ones(len(rows), bool)
        for shard, positions, local in self.reader.by_shard(rows):
            kept[positions] = shard.is_live(local)
            if self.label_ids is not None:
                kept[positions] &= np.isin(shard.labels_at(local), self.label_ids)
            elif self.settings.labelled_only:
                kept[positions] &= shard.labels_at(local) >= 0
            if self.where is not None:
                kept[positions] &= self.where(shard)[shard.source_at(local)]
            if shard in self.own:
                kept[positions] &= ~self._is_same(shard, local)
        return kept

    def _is_same(self, shard: Shard, local: RowNumbers) -> Mask:
        """Rows of the query's own patch, slide or patient; each level holds the one before."""
        same: Mask = np.isin(shard.source_at(local), list(self.own[shard]))
        if self.settings.exclude_same == "self":
            same &= (shard.coords[local] == (self.query.x, self.query.y)).all(axis=1)
        return same


def _label_ids(snapshot: Snapshot, settings: SearchSettings) -> npt.NDArray[Any] | None:
    if settings.labels is None:
        return None
    return np.array([class_number(snapshot, label) for label in sorted(settings.labels)], np.int64)
