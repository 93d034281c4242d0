"""How much of what a snapshot holds, kept in its manifest, so that nobody has to count.

A change costs what it changes: ten million rows are not looked at because one slide was added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from patchknn.archive.description import ShardDescription


class Totals(NamedTuple):
    """Live rows by class and without one, known patients, files' bytes and shards by format."""

    classes: dict[str, int]
    unlabelled: int
    patients: int
    bytes: int
    formats: dict[str, int]

    def changed(
        self,
        labels: Mapping[str | None, int],
        *,
        patients: int = 0,
        shards: Iterable[ShardDescription] = (),
        without: Iterable[ShardDescription] = (),
    ) -> Totals:
        """With so many more (or fewer) rows of labels, patients, and other shards."""
        classes, formats = Counter(self.classes), Counter(self.formats)
        size = self.bytes
        for name, count in labels.items():
            if name is not None:
                classes[name] += count
        for sign, some in ((1, shards), (-1, without)):
            for shard in some:
                formats[shard.container] += sign
                size += sign * bytes_of(shard)
        return Totals(
            classes={name: count for name, count in classes.items() if count},
            unlabelled=self.unlabelled + labels.get(None, 0),
            patients=self.patients + patients,
            bytes=size,
            formats={name: count for name, count in formats.items() if count},
        )


NOTHING = Totals({}, 0, 0, 0, {})


def bytes_of(shard: ShardDescription) -> int:
    """The bytes of a shard's files."""
    return sum(record.size for record in shard.files)


def totals_from_json(value: Any) -> Totals | None:
    """Totals as JSON has them; TypeError where they make no sense."""
    if value is None:
        return None
    totals = Totals(**value)
    counts = (totals.unlabelled, totals.patients, totals.bytes)
    tables = (totals.classes, totals.formats)
    fit = all(isinstance(table, dict) for table in tables)
    fit = fit and all(_is_count(n) for table in tables for n in table.values())
    if not fit or not all(map(_is_count, counts)):
        message = "totals are counts"
        raise TypeError(message)
    return totals


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
