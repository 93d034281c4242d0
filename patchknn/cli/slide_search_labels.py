"""What the slides of ``slide search`` are called, by whichever source the command line names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchknn.archive.mosaics import Mosaics
from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.errors import InputError
from patchknn.wholeslide.mosaics.slide_labels import (
    labels_by_field,
    labels_by_patches,
    most_frequent,
    read_label_table,
)

if TYPE_CHECKING:
    from patchknn.cli.slide_search_files import SlideFile


class SlideLabels:
    """Labels by a table, a field of records, or the labels of patches.

    Raises InputError where the table is none.
    """

    def __init__(self, snapshot: Snapshot, table: Path | None, field: str | None) -> None:
        self._snapshot = snapshot
        self._field = field
        self._table = None if table is None else read_label_table(table)
        self._missing = 0

    def of_archive(self, mosaics: Mosaics) -> list[str | None]:
        """The label (S,) of each archived slide; InputError where a table knows none of them."""
        names, patients = list(mosaics.names), list(mosaics.patients)
        pairs = list(zip(names, patients, strict=True))
        if self._field is not None:
            return labels_by_field(self._snapshot, self._field, pairs)
        table = self._table
        if table is None:
            return labels_by_patches(self._snapshot, names)
        labels = [table.label_of(*pair) for pair in pairs]
        self._missing = labels.count(None)
        if self._missing == len(labels):
            there = next(iter(names if table.key == "slide" else filter(None, patients)), "none")
            given = next(iter(table.labels), "none")
            message = (
                f"{table.path} names no {table.key} of {self._snapshot.path}: it has {given}, the "
                f"archive {there}; names must be the same."
            )
            raise InputError(message)
        return labels

    def warn(self) -> None:
        """Say how many slides have no label in the table."""
        if self._missing and self._table is not None:
            console.warn(
                f"archived slides that {self._table.path} gives no label: {self._missing}; they "
                "have no vote."
            )

    def of_file(self, slide: SlideFile) -> str | None:
        """The label of a slide that is not archived, None where that is unknown."""
        if self._table is not None:
            return self._table.label_of(slide.source, slide.mosaic.patient)
        if self._field is not None:
            pair = (slide.source, slide.mosaic.patient)
            return labels_by_field(self._snapshot, self._field, [pair])[0]
        return most_frequent(slide.labels)
