"""The results of one unit, gathered into rows for the archive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchknn.archive.rows import Rows, Source
from patchknn.bundle import Bundle
from patchknn.datasets.patches import Problem
from patchknn.indexing.features import EmbeddedBatch
from patchknn.indexing.units import WorkUnit


class UnitRows:
    """Collects one unit's patches as they leave the encoder, rounded as they will be stored."""

    def __init__(
        self, unit: WorkUnit, sources: Sequence[Source], bundle: Bundle, feature_dtype: str
    ) -> None:
        self.unit = unit
        self._bundle = bundle
        self._dtype = np.dtype(feature_dtype)
        self._sources = {source.name: number for number, source in enumerate(sources)}
        self._records = tuple(sources)
        self._classes: dict[str, int] = {}
        self._features: list[npt.NDArray[np.floating]] = []
        self._columns: list[tuple[int, int, int, int]] = []
        self._thumbnails: list[bytes | None] = []
        self._expected = 0
        self.problems: list[Problem] = []

    def add(self, batch: EmbeddedBatch) -> None:
        """Take one batch in; what has no feature becomes a problem."""
        self._expected += len(batch)
        with np.errstate(over="ignore"):
            features = batch.features.astype(self._dtype)
        fits = iter(np.isfinite(features).all(axis=1).tolist())
        kept: list[bool] = []
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
            self._columns.append((self._sources[patch.source], patch.x, patch.y, label))
            self._thumbnails.append(thumbnail)
        if any(kept):
            self._features.append(features if all(kept) else features[kept])

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
        if not self._features or (self.unit.is_slide and self.problems):
            return None
        features = np.concatenate(self._features)
        self._features = [features]  # of a large slide both would be much to hold
        number, x, y, label = np.array(self._columns, np.int64).T
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
