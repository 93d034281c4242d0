"""Fields of the records of slides and patients, beside the neighbours that are of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchknn.archive.records import open_records
from patchknn.archive.snapshot import Snapshot
from patchknn.search.answers import Answer, Failure, Neighbour


class NeighbourFields:
    """The fields ``names`` of a snapshot's attached tables; ``names`` is as the tables spell them.

    Raises UsageError where there is no such field, DamageError where a table is not as it was
    attached.
    """

    def __init__(self, snapshot: Snapshot, names: Sequence[str]) -> None:
        self._records = open_records(snapshot.path, snapshot.manifest.records)
        found = [self._records.field(name, "--fields") for name in names]
        self.names = tuple(dict.fromkeys(field.name for field in found))
        self._tables: dict[int, list[str]] = {}
        for field in dict.fromkeys(found):
            self._tables.setdefault(field.number, []).append(field.name)

    def beside(self, answers: Sequence[Answer | Failure]) -> list[Answer | Failure]:
        """The answers with these fields for each neighbour, None where its record has no value."""
        neighbours = [n for one in answers if isinstance(one, Answer) for n in one.neighbours]
        by_table = []
        for number, names in self._tables.items():
            key = self._records.entries[number].key
            keys = {k for n in neighbours if (k := _key_of(n, key)) is not None}
            by_table.append((key, self._records.values(number, names, keys)))
        filled: list[Answer | Failure] = []
        for answer in answers:
            if isinstance(answer, Answer):
                some = tuple(self._filled(one, by_table) for one in answer.neighbours)
                answer = answer._replace(neighbours=some)  # noqa: PLW2901
            filled.append(answer)
        return filled

    def _filled(
        self, neighbour: Neighbour, by_table: Sequence[tuple[str, dict[str, dict[str, Any]]]]
    ) -> Neighbour:
        fields: dict[str, Any] = dict.fromkeys(self.names)
        for key, values in by_table:
            fields |= values.get(_key_of(neighbour, key) or "", {})
        return neighbour._replace(fields=fields)


def _key_of(neighbour: Neighbour, key: str) -> str | None:
    return neighbour.source if key == "slide" else neighbour.patient
