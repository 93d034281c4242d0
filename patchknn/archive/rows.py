"""What goes into an archive: rows of features, and the sources that they were cut from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.ordering import gathered


class Source(NamedTuple):
    """A slide or plain image.

    ``path`` is absolute, as it was when embedded, or the name where that was not kept;
    ``quickhash`` is 16 bytes of
    ``patchknn.files.quickhash``; ``mpp`` is µm/px at level 0, None where unknown; ``attributes``
    is a JSON object of what else the file said that its features were imported from, or empty.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    quickhash: bytes
    mpp: float | None = None
    patient: str | None = None
    attributes: str = ""

    def same_content(self, other: Source) -> bool:
        """Whether both are the same file content, wherever and whenever it lay."""
        return (self.size, self.quickhash) == (other.size, other.quickhash)


class Rows:
    """Rows to be archived, in any order.

    features (n, D) floating; codes (n, K/8) uint8; coords (n, 2) int64, level-0 x and y, −1 for
    plain images; source (n,) int32 into ``sources``; labels (n,) int32 into ``classes``, −1 for
    none; thumbnails are encoded images, one a row, or None.
    """

    def __init__(  # noqa: PLR0917
        self,
        features: npt.NDArray[Any],
        codes: npt.NDArray[np.uint8],
        coords: npt.NDArray[np.int64],
        source: npt.NDArray[np.int32],
        labels: npt.NDArray[np.int32],
        sources: tuple[Source, ...],
        classes: tuple[str, ...],
        thumbnails: tuple[bytes, ...] | None = None,
    ) -> None:
        self.features = features
        self.codes = codes
        self.coords = coords
        self.source = source
        self.labels = labels
        self.sources = sources
        self.classes = classes
        self.thumbnails = thumbnails

    def __len__(self) -> int:
        return len(self.features)

    def with_sources(self, sources: tuple[Source, ...]) -> Rows:
        """The same rows with other records of their sources, in the same order."""
        return Rows(
            *(self.features, self.codes, self.coords, self.source, self.labels),
            sources,
            self.classes,
            self.thumbnails,
        )

    def take(self, rows: npt.NDArray[Any]) -> Rows:
        """The rows of the given numbers or truth values, with all sources and classes."""
        numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        thumbnails = self.thumbnails
        return Rows(
            gathered(self.features, numbers),
            self.codes[numbers],
            self.coords[numbers],
            self.source[numbers],
            self.labels[numbers],
            self.sources,
            self.classes,
            None if thumbnails is None else tuple(thumbnails[row] for row in numbers.tolist()),
        )


def concatenate(parts: list[Rows]) -> Rows:
    """One block of rows out of several: sources that have rows united by name, classes by name.

    Thumbnails stay where every part has them.
    """
    sources: dict[str, tuple[int, Source]] = {}
    classes: dict[str, int] = {}
    source_columns, label_columns = [], []
    for part in parts:
        numbers = np.full(len(part.sources), -1, np.int32)
        for own in np.unique(part.source).tolist():  # of a source that was replaced none are left
            source = part.sources[own]
            numbers[own] = sources.setdefault(source.name, (len(sources), source))[0]
        source_columns.append(numbers[part.source])
        # The last entry is where −1 points: no label stays no label.
        labels = [classes.setdefault(name, len(classes)) for name in part.classes] + [-1]
        label_columns.append(np.array(labels, np.int32)[part.labels])
    thumbnails = None
    if all(part.thumbnails is not None for part in parts):
        thumbnails = tuple(image for part in parts for image in part.thumbnails or ())
    return Rows(
        # What is one block already is much to copy.
        parts[0].features if len(parts) == 1 else np.concatenate([p.features for p in parts]),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.coords for part in parts]),
        np.concatenate(source_columns),
        np.concatenate(label_columns),
        tuple(source for _, source in sources.values()),
        tuple(classes),
        thumbnails,
    )
