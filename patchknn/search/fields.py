"""Fields of the records of slides and patients, beside the neighbours that are of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from patchknn.archive.records import open_records
from patchknn.archive.snapshot import Snapshot
from patchknn.search.answers import Answer, Failure

Given = TypeVar("Given", bound=Answer | Failure | None)
_Named = tuple[str | None, str | None]  # a slide and a patient


class NeighbourFields:
    """The fields ``names`` of a snapshot's attached tables; ``names`` is as the tables spell them.

    Raises UsageError naming the ``option`` that asks where there is no such field, DamageError
    where a table is not as it was attached.
    """

    def __init__(
        self, snapshot: Snapshot, names: Sequence[str], *, option: str = "--fields"
    ) -> None:
        self._records = open_records(snapshot.path, snapshot.manifest.records)
        found = [self._records.field(name, option) for name in names]
        self.names = tuple(dict.fromkeys(field.name for field in found))
        self._tables: dict[int, list[str]] = {}
        for field in dict.fromkeys(found):
            self._tables.setdefault(field.number, []).append(field.name)

    def beside(self, answers: Iterable[Given]) -> list[Given]:
        """The answers with these fields for each neighbour, None where its record has no value."""
        listed = list(answers)
        neighbours = [n for one in listed if isinstance(one, Answer) for n in one.neighbours]
        records = iter(self.records_of([(n.source, n.patient) for n in neighbours]))
        return [
            one._replace(neighbours=tuple(n._replace(fields=next(records)) for n in one.neighbours))
            if isinstance(one, Answer)
            else one
            for one in listed
        ]

    def records_of(self, named: Sequence[_Named]) -> list[dict[str, Any]]:
        """These fields of each pair of a slide and its patient, None where there is no value."""
        keys_of = {"slide": [slide for slide, _ in named], "patient": [one for _, one in named]}
        found: list[dict[str, Any]] = [dict.fromkeys(self.names) for _ in named]
        for number, names in self._tables.items():
            keys = keys_of[self._records.entries[number].key]
            values = self._records.values(number, names, {key for key in keys if key is not None})
            for record, key in zip(found, keys, strict=True):
                record.update(values.get(key or "", {}))
        return found
