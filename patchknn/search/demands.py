"""What each query demands of the rows that answer it: how many, which, and how many of a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.search.filters import QueryFilter, RowFilter
from patchknn.search.neighbours import hamming_to
from patchknn.search.parts import Codes
from patchknn.search.pool import Demand
from patchknn.search.query import Query
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings

_NO_BITS = np.zeros(0, np.int64)


class Demands:
    """The demands of queries on one snapshot under one set of settings.

    ``k`` is how many rows each asks for. Raises UsageError as ``RowFilter`` does.
    """

    def __init__(self, snapshot: Snapshot, settings: SearchSettings, reader: RowReader) -> None:
        self._settings = settings
        self._reader = reader
        self._n_rows = len(snapshot)
        # One more than there are is as many as any number beyond, and can be counted.
        self.k = min(settings.k, self._n_rows + 1)
        self._filter = RowFilter(snapshot, settings, reader)

    def check(self, query: Query) -> None:
        """Raise InputError where ``exclude_same`` is ``patient`` and the query's is unknown."""
        self._filter.check(query)

    def of(self, queries: Sequence[Query], codes: Sequence[Codes]) -> list[Demand]:
        """Those of queries that ``check`` lets through; ``codes`` has (K/8,) for each."""
        filters = self._filter.for_queries(queries)
        bits = self._skip_bits([one.skip for one in filters], codes)
        return [self._demand(*one) for one in zip(filters, bits, strict=True)]

    def of_features(self) -> Demand | None:
        """What features alone demand, None where that is more than to be there still."""
        settings = self._settings
        by_label = settings.labels is not None or settings.labelled_only
        anything = not by_label and settings.where is None
        if not anything or settings.max_per or settings.exclude_same not in {"none", "self"}:
            return None
        return Demand(self.k, self._reader.are_live, np.zeros(0, np.int64))

    def _skip_bits(
        self, skips: Sequence[RowNumbers | None], codes: Sequence[Codes]
    ) -> list[npt.NDArray[np.int64]]:
        """The Hamming distances of the rows that each query skips, found out together."""
        counts = [0 if skip is None else len(skip) for skip in skips]
        if not any(counts):
            return [_NO_BITS] * len(skips)
        rows = np.concatenate([skip for skip in skips if skip is not None])
        bits = hamming_to(self._reader, rows, np.repeat(np.stack(codes), counts, axis=0))
        return np.split(bits, np.cumsum(counts)[:-1])

    def _demand(self, row_filter: QueryFilter, bits: npt.NDArray[np.int64]) -> Demand:
        skip = row_filter.skip
        if self._settings.max_per is None:
            return Demand(self.k, row_filter.admits, skip, bits)
        kind, per_group = self._settings.max_per
        numbering: dict[object, int] = {}

        def groups(rows: RowNumbers) -> RowNumbers:
            return self._reader.groups(rows, kind, numbering)

        # As a number of rows, which NumPy can hold.
        per_group = min(per_group, self._n_rows)
        return Demand(self.k, row_filter.admits, skip, bits, groups, per_group)
