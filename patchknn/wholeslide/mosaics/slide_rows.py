"""The slides of a snapshot, and where the rows of each lie: in one shard or in several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.ordering import gathered
from patchknn.archive.snapshot import Shard, Snapshot

Rows = npt.NDArray[np.int32]

_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


class SlideRows(NamedTuple):
    """The live rows of one slide: of each shard that has some, those rows (m,) ascending.

    ``content`` is the quickhash of its file, ``fingerprint`` one of its file and of where its
    patches lie: as long as that is the same, so are its features, whatever shards hold them.
    """

    name: str
    patient: str | None
    content: bytes
    fingerprint: bytes
    parts: tuple[tuple[Shard, Rows], ...]

    @property
    def patches(self) -> int:
        """n; ``len`` is that of a tuple."""
        return sum(len(rows) for _, rows in self.parts)

    def features(self) -> npt.NDArray[Any]:
        """(n, D) as the archive stores them."""
        return np.concatenate(
            [gathered(shard.features, _whole(rows)) for shard, rows in self.parts]
        )

    def coords(self) -> npt.NDArray[np.int64]:
        """(n, 2) level-0 x and y, −1 for a plain image."""
        return np.concatenate([shard.coords[rows] for shard, rows in self.parts])

    def codes(self) -> npt.NDArray[np.uint8]:
        """(n, K/8) uint8."""
        return np.concatenate([shard.codes[rows] for shard, rows in self.parts])


class _Part(NamedTuple):
    patient: str | None
    content: bytes
    positions: int
    shard: Shard
    rows: Rows


def slides_of(snapshot: Snapshot) -> list[SlideRows]:
    """Every slide that has a row left, by name. Of each row four bytes are in memory.

    Plain images, which have no place on a slide, are left out.
    """
    found: dict[str, list[_Part]] = {}
    for shard in snapshot.shards:
        for name, part in _parts(shard):
            found.setdefault(name, []).append(part)
    return [_joined(name, found[name]) for name in sorted(found)]


def _parts(shard: Shard) -> list[tuple[str, _Part]]:
    live = shard.live_rows()
    live = live[(shard.coords[live] >= 0).any(axis=1)]
    if not len(live):
        return []
    source = shard.source_at(live)
    order = np.argsort(source, kind="stable")
    rows, source = live[order].astype(np.int32), source[order]
    starts = np.flatnonzero(np.diff(source, prepend=-1))
    numbers = source[starts].astype(np.int64)
    sums = np.add.reduceat(_mixed(shard.coords[rows]), starts).tolist()
    names, patients = shard.source_names.take(numbers), shard.patients.take(numbers)
    contents = shard.source_quickhashes[numbers]
    own = np.split(rows, starts[1:])
    return [
        (name, _Part(patient, content.tobytes(), positions, shard, some))
        for name, patient, content, positions, some in zip(
            names, patients, contents, sums, own, strict=True
        )
    ]


def _joined(name: str, parts: Sequence[_Part]) -> SlideRows:
    positions = sum(part.positions for part in parts) % (1 << 64)
    content = parts[0].content
    count = sum(len(part.rows) for part in parts)
    fingerprint = content + positions.to_bytes(8, "little") + count.to_bytes(8, "little")
    patient = next((part.patient for part in parts if part.patient is not None), None)
    rows = tuple((part.shard, part.rows) for part in parts)
    return SlideRows(name, patient, content, fingerprint, rows)


def _mixed(coords: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """One well-mixed number (n,) a position (n, 2), whose sum tells sets of positions apart."""
    values = (coords.astype(np.uint64) * _MULTIPLIERS).sum(axis=1, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _whole(rows: Rows) -> npt.NDArray[np.int64]:
    return rows.astype(np.int64)
