"""The shards of one writer that no manifest names yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from patchknn.archive.description import SHARDS
from patchknn.archive.rows import Rows
from patchknn.archive.settings import ArchiveSettings
from patchknn.archive.shard import Shard
from patchknn.archive.shard_writer import WrittenShard, write_shard
from patchknn.files import fsync_directory


class PendingShards:
    """Written shards in their order; each counts the sources that none before it holds."""

    def __init__(
        self, path: Path, settings: ArchiveSettings, *, container: str, run_id: str | None
    ) -> None:
        self._path = path
        self._settings = settings
        self._container = container
        self._run_id = run_id
        self._shards: list[WrittenShard] = []
        self._names: set[str] = set()
        self.left_out = 0  # rows, by ``leave_out``

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[WrittenShard]:
        return iter(self._shards)

    def opened(self) -> list[Shard]:
        """The same to be read, each by its own classes, once they have their own names."""
        return [self._opened(one) for one in self._shards]

    def write(self, rows: Rows, pieces: int) -> None:
        """Write rows as so many shards: all of them or none, so that it can be tried again."""
        names, before = set(self._names), len(self._shards)
        try:
            parts = np.array_split(np.arange(len(rows)), min(pieces, len(rows)))
            for part in parts:
                # To take all of them would be one more copy of half a gigabyte.
                self._shards.append(self._written(rows if len(parts) == 1 else rows.take(part)))
        except BaseException:
            for shard in self._shards[before:]:
                shard.remove()
            self._names, self._shards = names, self._shards[:before]
            raise

    def rename(self) -> None:
        """Give all of them their own names, synced to disk."""
        for shard in self._shards:
            shard.rename()
        fsync_directory(self._path / SHARDS)

    def leave_out(self, names: Collection[str]) -> None:
        """Write again those that hold some sources, without these; ``left_out`` counts their rows.

        Where that fails, such as on a full disk, what was not yet written is there still.
        """
        known, self._names = self._names, set()
        try:
            for written in tuple(self._shards):
                place = self._shards.index(written)
                rest, rows = self._without(written, set(names))
                self._shards[place : place + 1] = rest
                self.left_out += rows
                if written not in rest:
                    written.remove()
        except BaseException:
            self._names = known
            raise

    def forget(self, uuids: Collection[str], names: Collection[str]) -> None:
        """Those of ``uuids`` are published; of the rest there are no sources but ``names``."""
        self._shards = [one for one in self._shards if one.entry.uuid not in uuids]
        self._names &= set(names)

    def clear(self) -> None:
        """Know of none any more."""
        self._shards = []
        self._names = set()

    def remove(self) -> None:
        """Delete all of them."""
        for shard in self._shards:
            shard.remove()
        self.clear()

    def _without(self, written: WrittenShard, names: set[str]) -> tuple[list[WrittenShard], int]:
        written.rename()
        shard = self._opened(written)
        if not names.intersection(shard.source_names):
            self._names.update(shard.source_names)
            return [written], 0
        rows = shard.rows()
        taken = np.array([source.name in names for source in rows.sources])
        kept = ~taken[rows.source]
        rest = [self._written(rows.take(kept))] if kept.any() else []
        return rest, int(len(rows) - kept.sum())

    def _opened(self, written: WrittenShard) -> Shard:
        description = written.description
        return Shard(self._path, description, 0, description.classes)

    def _written(self, rows: Rows) -> WrittenShard:
        names = {rows.sources[number].name for number in np.unique(rows.source).tolist()}
        shard = write_shard(
            self._path,
            self._settings,
            rows,
            container=self._container,
            run_id=self._run_id,
            new_sources=len(names - self._names),
        )
        self._names |= names
        return shard
