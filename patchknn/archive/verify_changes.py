"""Everything that can be wrong with the changes of an archive, and with a snapshot as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchknn.archive.change import CHANGES, Change, open_change
from patchknn.archive.checksums import span_checksum
from patchknn.archive.counting import count
from patchknn.archive.description import SHARDS
from patchknn.archive.manifest import REMOVE, ChangeEntry
from patchknn.archive.shard import Shard
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import DamageError, PatchknnError

Findings = Iterator[tuple[str, str]]


def change_findings(path: Path, entry: ChangeEntry, advance: Callable[[int], None]) -> Findings:
    """(file, sentence) for each thing wrong with one change, shards aside."""
    name = f"{CHANGES}/{entry.uuid}"
    try:
        change = open_change(path, entry)
    except (PatchknnError, OSError) as error:
        yield f"{name}.json", _first_sentence(error)
        return
    for array, place in change.head.arrays.items():
        try:
            values = change.array(array)
            found = span_checksum(change.file, place.offset, values.nbytes)
        except (PatchknnError, OSError) as error:
            yield f"{name}.bin", _first_sentence(error)
            return
        if found != place.checksum:
            yield f"{name}.bin", f"The bytes of {array} do not match their checksum."
        advance(values.nbytes)
    try:
        _read_all(change)
    except DamageError as error:
        yield f"{name}.bin", _first_sentence(error)


def snapshot_findings(snapshot: Snapshot, name: str) -> Findings:
    """What is wrong between the shards and changes of a snapshot, whose manifest is ``name``.

    Its files are whole each by itself.
    """
    shards = snapshot.shards
    try:
        named = [shard.edits.removed_rows_named for shard in shards]
        removed = [len(shard.edits.removed) for shard in shards]
        _ = [shard.labels for shard in shards]
        live = [shard.live_sources() for shard in shards]
    except DamageError as error:
        yield name, _first_sentence(error)
        return
    if sum(named) != sum(removed):
        yield name, f"{sum(named) - sum(removed)} of its rows were removed twice."
    keys, counts = np.unique(
        np.concatenate(
            [
                np.zeros(0, np.uint64),
                *(s.source_keys[numbers] for s, numbers in zip(shards, live, strict=True)),
            ]
        ),
        return_counts=True,
    )
    if len(keys) != snapshot.n_sources:
        yield name, f"It says {snapshot.n_sources} sources; the shards hold {len(keys)}."
    for shard in shards:
        if shard.edits.is_any and not np.array_equal(_without_rows(shard), _dead(shard)):
            yield name, f"A change says wrongly which sources shard {shard.uuid} has lost."
    totals = snapshot.manifest.totals
    if totals is not None and totals != count(snapshot):
        yield name, "Its totals by class, patient, format or bytes are not those of its shards."
    yield from _repeated_patches(shards, keys[counts > 1])


def _repeated_patches(shards: Sequence[Shard], keys: npt.NDArray[np.uint64]) -> Findings:
    """Sources that lie in several shards must not have one live patch in two of them."""
    if not len(keys):
        return
    seen: dict[tuple[str, int, int], str] = {}
    for shard in shards:
        shared = np.isin(shard.source_keys, keys)
        rows = np.flatnonzero(shared[shard.source])
        for row in rows[shard.is_live(rows)].tolist():
            x, y = shard.coords[row].tolist()
            source = shard.source_names[int(shard.source[row])]
            other = seen.setdefault((source, x, y), shard.uuid)
            if other != shard.uuid:
                yield (
                    f"{SHARDS}/{shard.uuid}.json",
                    f"{source} at {x}, {y} lies in shard {other} too.",
                )


def _without_rows(shard: Shard) -> npt.NDArray[np.int64]:
    left = np.unique(shard.source[shard.live_rows()])
    return np.setdiff1d(np.arange(shard.n_sources), left)


def _dead(shard: Shard) -> npt.NDArray[np.int64]:
    return shard.edits.dead_sources.astype(np.int64)


def _read_all(change: Change) -> None:
    rows = 0
    for number in range(len(change.shards)):
        rows += len(change.rows_of(number))
        if change.head.kind == REMOVE:
            change.dead_of(number)
        else:
            change.labels_of(number)
    if rows != change.head.rows:
        problem = f"it holds {rows} rows instead of {change.head.rows}"
        raise change.damaged(problem)
    change.events()


def _first_sentence(error: Exception) -> str:
    return str(error).split(" See all that is wrong by ")[0]
