"""Which rows a command means: patch ids, slides, patients, labels, taken together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.listing import class_number
from patchknn.archive.shard import Shard
from patchknn.archive.snapshot import Snapshot

Int64 = npt.NDArray[np.int64]
RowsByShard = dict[str, Int64]


class Choice(NamedTuple):
    """Rows with one of the ids, of one of the slides or patients, or that ``where`` admits.

    ``labels`` leaves of them those of these classes, or of all rows where nothing else is said.
    ``where`` is given a shard and returns whether each of its sources (S,) is meant.
    """

    ids: Sequence[str] = ()
    slides: Sequence[str] = ()
    patients: Sequence[str] = ()
    labels: Sequence[str] = ()
    where: Callable[[Shard], npt.NDArray[np.bool_]] | None = None

    @property
    def says_which(self) -> bool:
        """Whether anything is said but a label."""
        return bool(self.ids or self.slides or self.patients or self.where)


class Chosen(NamedTuple):
    """Live rows (m,) within their shards, ascending, by the shard's uuid; no shard without any.

    ``missing``: ids, slides and patients that the snapshot lacks, as they were given.
    """

    rows: RowsByShard
    missing: tuple[str, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


def chosen_rows(snapshot: Snapshot, choice: Choice) -> Chosen:
    """The rows of a snapshot that are meant; UsageError where it has no class of a label."""
    numbers = [class_number(snapshot, label) for label in choice.labels]
    sources, missing = _named_sources(snapshot, choice)
    ids = snapshot.locate_many(choice.ids) if choice.ids else np.zeros(0, np.int64)
    missing += [name for name, row in zip(choice.ids, ids.tolist(), strict=True) if row < 0]
    ids = np.unique(ids[ids >= 0])
    rows: RowsByShard = {}
    shards: Sequence[Shard] = snapshot.shards
    if choice.says_which and choice.where is None:  # of thousands of shards a few are looked at
        owners = np.unique(np.searchsorted(snapshot.shards.first_rows, ids, side="right") - 1)
        of_ids = {snapshot.shards[owner].uuid for owner in owners.tolist()}
        shards = snapshot.shards_named({*sources, *of_ids})
    for shard in shards:
        first, after = np.searchsorted(ids, [shard.first_row, shard.first_row + shard.n])
        parts = [ids[first:after] - shard.first_row]
        if not choice.says_which:
            parts.append(np.arange(shard.n, dtype=np.int64))
        wanted = sources.get(shard.uuid, np.zeros(0, np.int64))
        if choice.where is not None:
            wanted = np.union1d(wanted, np.flatnonzero(choice.where(shard)))
        if len(wanted):
            parts.append(rows_of_sources(shard, wanted))
        found = np.unique(np.concatenate(parts))
        if not len(found):
            continue
        found = found[shard.is_live(found)]
        if numbers:
            found = found[np.isin(shard.labels_at(found), numbers)]
        if len(found):
            rows[shard.uuid] = found
    return Chosen(rows, tuple(missing))


def rows_of_sources(shard: Shard, sources: Int64) -> Int64:
    """Rows (m,) of a shard that are of these sources, removed ones too."""
    wanted = np.zeros(shard.n_sources, bool)
    wanted[sources] = True
    return np.flatnonzero(wanted[shard.source]).astype(np.int64, copy=False)


def _named_sources(snapshot: Snapshot, choice: Choice) -> tuple[dict[str, Int64], list[str]]:
    found: dict[str, list[int]] = {}
    missing = []
    for names, find in (
        (choice.slides, snapshot.sources_named),
        (choice.patients, snapshot.sources_of_patients),
    ):
        given = list(dict.fromkeys(names))
        present = set()
        for number, shard, source in find(given) if given else ():
            present.add(number)
            found.setdefault(shard.uuid, []).append(source)
        missing += [name for number, name in enumerate(given) if number not in present]
    return {uuid: np.array(numbers, np.int64) for uuid, numbers in found.items()}, missing
