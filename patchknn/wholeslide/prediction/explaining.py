"""What in an archive is like the places that an answer comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot, patch_id
from patchknn.errors import ConflictError
from patchknn.search.answers import Failure
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings
from patchknn.wholeslide.grids.grid import Grid
from patchknn.wholeslide.prediction.predicting import SlidePrediction

# Slides of an archive that are like a grid, nearest first, as objects for NDJSON.
SlideFinder = Callable[[Grid], list[dict[str, Any]]]


class Explainer:
    """Finds the archived patches nearest to the most salient ones of a slide.

    The slide's own patches never explain it, under whatever name, and neither do those of its
    patient, where the grid or the archive knows that. ``slides``, where given, finds the nearest
    slides. Raises what ``Searcher`` raises.
    """

    def __init__(
        self, snapshot: Snapshot, k: int, *, slides: SlideFinder | None = None, threads: int = 1
    ) -> None:
        self._snapshot, self._slides = snapshot, slides
        known = SearchSettings(k=k, exclude_same="patient")
        self._of_patients = Searcher(snapshot, known, threads)
        self._of_slides = Searcher(snapshot, known._replace(exclude_same="slide"), threads)

    def explained(self, prediction: SlidePrediction) -> SlidePrediction:
        """The same with ``explanation``: ``neighbours`` of each salient patch, and slides.

        Raises ConflictError where the archive is of another encoder than the grid.
        """
        if not prediction.answer:
            return prediction
        grid = prediction.grid
        self._check(prediction.path, grid)
        patient = grid.info.patient or self._archived_patient(grid)
        searcher = self._of_slides if patient is None else self._of_patients
        explanation: dict[str, Any] = {"neighbours": []}
        for answer in searcher.search_many(self._queries(prediction, patient)):
            explanation["neighbours"].append(answer.as_json())
        if self._slides is not None:
            explanation["slides"] = self._slides(grid)
        return replace(prediction, explanation=explanation)

    def _archived_patient(self, grid: Grid) -> str | None:
        """Whose the slide is where only the archive knows, by its name or its content."""
        places = self._snapshot.sources_named([grid.info.name])
        if (content := content_of(grid)) is not None:
            places = [*places, *self._snapshot.sources_by_quickhash([content])]
        patients = (shard.patients[number] for _, shard, number in places)
        return next((patient for patient in patients if patient is not None), None)

    def _queries(
        self, prediction: SlidePrediction, patient: str | None
    ) -> Iterator[Query | Failure]:
        info = prediction.grid.info
        corners = info.corners(prediction.places).tolist()
        vectors = archived_vectors(self._snapshot, prediction.grid, prediction.places)
        for (x, y), vector in zip(corners, vectors, strict=True):
            name = patch_id(prediction.name, x, y)
            content = content_of(prediction.grid)
            yield Query(name, vector, name, prediction.name, patient, content, x=x, y=y)

    def _check(self, path: Path, grid: Grid) -> None:
        stored = self._snapshot.settings
        if stored.encoder_fingerprint != grid.info.encoder:
            message = (
                f"{self._snapshot.path} is of another encoder than {path}: give the archive that "
                "was embedded with the grids' encoder."
            )
            raise ConflictError(message)
        if stored.orientations not in {1, grid.entries}:
            message = (
                f"{self._snapshot.path} holds features averaged over {stored.orientations} "
                f"orientations, and {path} has {grid.entries}: compress with --augment 8."
            )
            raise ConflictError(message)


def content_of(grid: Grid) -> bytes | None:
    """The quickhash of the slide that a grid was made of, None where it does not say."""
    told = grid.info.settings.get("content")
    return bytes.fromhex(str(told)) if told else None


def archived_vectors(
    snapshot: Snapshot, grid: Grid, places: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Vectors (n, D) of places (n, 2) as the archive makes them: of one orientation, or eight."""
    chosen = grid.features[:, :, places[:, 0], places[:, 1]].astype(np.float32)
    mean = chosen[: snapshot.settings.orientations].mean(axis=0)
    return np.ascontiguousarray(mean.T)
