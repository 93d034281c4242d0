"""What slides are called: by a table, by a field of records, or by most of their patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError
from patchknn.search.answers import cell
from patchknn.tables import read_table

_KEYS = ("slide", "patient")


class LabelTable(NamedTuple):
    """Labels by slide or by patient, as ``key`` says, from a table of ``path``."""

    path: Path
    key: str
    labels: dict[str, str]

    def label_of(self, slide: str, patient: str | None) -> str | None:
        """The label of one slide, None where the table has none."""
        wanted = slide if self.key == "slide" else patient
        return None if wanted is None else self.labels.get(wanted)


def read_label_table(path: Path) -> LabelTable:
    """A table with the columns ``label``, and ``slide`` or ``patient`` (the first where both are).

    Rows without a label are left out. Raises InputError where it has not these columns, or two
    labels for one slide or patient.
    """
    table = read_table(path, required=("label",))
    key = next((name for name in _KEYS if name in table.columns), None)
    if key is None:
        has = ", ".join(table.columns)
        message = f"{path} has neither a column 'slide' nor 'patient': it has {has}."
        raise InputError(message)
    labels: dict[str, str] = {}
    for line, row in zip(table.lines, table.rows, strict=True):
        name, label = row[key], row["label"]
        if name is None or label is None:
            continue
        if labels.setdefault(name, label) != label:
            message = (
                f"{path}, line {line}: {name} is labelled {label!r}, and {labels[name]!r} before; "
                "leave one of them."
            )
            raise InputError(message)
    return LabelTable(path, key, labels)


def labels_by_field(
    snapshot: Snapshot, field: str, slides: Sequence[tuple[str, str | None]]
) -> list[str | None]:
    """A field of attached records as the label of each slide (name, patient).

    Raises UsageError where there is no such field, DamageError where a table was changed.
    """
    from patchknn.search.fields import NeighbourFields

    fields = NeighbourFields(snapshot, [field], option="--label-field")
    (name,) = fields.names
    values = (record[name] for record in fields.records_of(slides))
    return [None if value is None else str(cell(value)) for value in values]


def labels_by_patches(snapshot: Snapshot, names: Sequence[str]) -> list[str | None]:
    """The label that most patches of each slide have, None where none has one.

    Patches without a label do not count; a tie goes to the name that sorts first.
    """
    numbers = {name: number for number, name in enumerate(names)}
    classes = sorted(snapshot.classes)
    place = np.array([classes.index(name) for name in snapshot.classes], np.int64)
    counts = np.zeros((len(names), max(len(classes), 1)), np.int64)
    for shard in snapshot.shards:
        live = shard.live_rows()
        labels = shard.labels_at(live)
        live, labels = live[labels >= 0], labels[labels >= 0]
        if not len(live):
            continue
        source = shard.source_at(live).astype(np.int64)
        pairs, found = np.unique(source * len(classes) + place[labels], return_counts=True)
        own, label = np.divmod(pairs, len(classes))
        slides = [numbers.get(name, -1) for name in shard.source_names.take(own)]
        slide = np.array(slides, np.int64)
        np.add.at(counts, (slide[slide >= 0], label[slide >= 0]), found[slide >= 0])
    best = counts.argmax(axis=1)
    return [
        classes[number] if row[number] else None
        for row, number in zip(counts, best.tolist(), strict=True)
    ]


def most_frequent(labels: Sequence[str | None]) -> str | None:
    """The label that most patches have, by the rule of ``labels_by_patches``."""
    known = [label for label in labels if label is not None]
    return min(set(known), key=lambda name: (-known.count(name), name), default=None)
