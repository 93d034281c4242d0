"""The results of one unit, gathered into rows for the archive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchknn.archive.rows import Rows, Source
from patchknn.bundle import Bundle
from patchknn.datasets.patches import Problem
from patchknn.indexing.features import EmbeddedBatch
from patchknn.indexing.units import WorkUnit


class UnitRows:
    """Collects one unit's patches as they leave the encoder, rounded as they will be stored.

    ``expected`` of them, of which some may fail.
    """

    def __init__(
        self,
        unit: WorkUnit,
        sources: Sequence[Source],
        bundle: Bundle,
        feature_dtype: str,
        expected: int,
    ) -> None:
        self.unit = unit
        self._bundle = bundle
        self._dtype = np.dtype(feature_dtype)
        self._expected = expected
        # One block, which the system gives page by page: of a large slide two would be much.
        self._features = np.empty((expected, bundle.description.feature_dim), self._dtype)
        self._columns = np.empty((expected, 4), np.int64)
        self._count = 0
        self._sources = {source.name: number for number, source in enumerate(sources)}
        self._records = tuple(sources)
        self._classes: dict[str, int] = {}
        self._thumbnails: list[bytes | None] = []
        self.problems: list[Problem] = []

    def add(self, batch: EmbeddedBatch) -> None:
        """Take one batch in; what has no feature becomes a problem."""
        with np.errstate(over="ignore"):
            features = batch.features.astype(self._dtype)
        fits = iter(np.isfinite(features).all(axis=1).tolist())
        kept: list[bool] = []
        columns: list[tuple[int, int, int, int]] = []
        for patch, error, thumbnail in zip(
            batch.patches, batch.errors, batch.thumbnails, strict=True
        ):
            if isinstance(patch, Problem) or error is not None:
                name = patch.name if isinstance(patch, Problem) else patch.source
                self.problems.append(Problem(name, error or f"{name} cannot be read."))
                continue
            kept.append(next(fits))
            if not kept[-1]:
                sentence = (
                    f"{patch.id}: a feature is too large for {self._dtype}; make the archive with "
                    "--feature-dtype float32."
                )
                self.problems.append(Problem(patch.source, sentence))
                continue
            label = -1
            if patch.label is not None:
                label = self._classes.setdefault(patch.label, len(self._classes))
            columns.append((self._sources[patch.source], patch.x, patch.y, label))
            self._thumbnails.append(thumbnail)
        if columns:
            new = slice(self._count, self._count + len(columns))
            self._features[new] = features if all(kept) else features[kept]
            self._columns[new] = columns
            self._count = new.stop

    def failures(self) -> list[Problem]:
        """One per source: the images that failed, or the slide if any of its patches did."""
        if not self.problems or not self.unit.is_slide:
            return self.problems
        first = self.problems[0]
        if len(self.problems) == 1:
            return [first]
        sentence = f"{first.error} ({len(self.problems)} of {self._expected} patches failed.)"
        return [Problem(first.name, sentence)]

    def rows(self) -> Rows | None:
        """What can be archived of the unit so far: of a slide, everything or nothing."""
        if not self._count or (self.unit.is_slide and self.problems):
            return None
        features = self._features[: self._count]
        number, x, y, label = self._columns[: self._count].T
        used, source = np.unique(number, return_inverse=True)
        thumbnails = tuple(image for image in self._thumbnails if image is not None)
        return Rows(
            features=features,
            codes=self._bundle.codes(features),
            coords=np.stack([x, y], axis=1),
            source=source.astype(np.int32),
            labels=label.astype(np.int32),
            sources=tuple(self._records[index] for index in used.tolist()),
            classes=tuple(self._classes),
            thumbnails=thumbnails if len(thumbnails) == len(features) else None,
        )
