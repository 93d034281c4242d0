"""Which archived slides are like this one: nearest by their mosaics, then put to the vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.mosaics import Mosaic, Mosaics
from patchknn.search.votes import tally
from patchknn.wholeslide.mosaics.slide_answers import Majority, Match, SlideAnswer, SlideNeighbour
from patchknn.wholeslide.mosaics.slide_distances import (
    HammingDistances,
    L2Distances,
    Nearest,
    SlideDistances,
)

Mask = npt.NDArray[np.bool_]

_MAJORITIES = (1, 3, 5)


class SlideSearchSettings(NamedTuple):
    """``by`` which distance; the ``k`` nearest are shown, with so many pairs of ``matches`` each.

    ``exclude_same`` leaves out the query's own slide, or all slides of its patient; with
    ``labelled_only`` slides without a label are left out too.
    """

    by: Literal["hamming", "l2"] = "hamming"
    k: int = 5
    exclude_same: Literal["none", "slide", "patient"] = "patient"
    labelled_only: bool = False
    matches: int = 3

    @property
    def majorities(self) -> tuple[int, ...]:
        """Of how many nearest slides the vote is given: 1, 3, 5 as far as k goes, and k."""
        return tuple(sorted({*(k for k in _MAJORITIES if k <= self.k), self.k}))


class SlideSearcher:
    """Answers for slides from the mosaics of an archive.

    ``labels`` (S,) are those of its slides, None where there is none; ``admitted`` (S,) says which
    may answer, None: all. ``threads`` help; answers do not hang on them.
    """

    def __init__(
        self,
        mosaics: Mosaics,
        labels: Sequence[str | None],
        settings: SlideSearchSettings,
        threads: int = 1,
        admitted: Mask | None = None,
    ) -> None:
        self.settings = settings
        self.mosaics = mosaics
        self.labels = labels
        self._names = list(mosaics.names)
        self._patients = list(mosaics.patients)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._of_patient: dict[str, list[int]] = {}
        for number, patient in enumerate(self._patients):
            if patient is not None:
                self._of_patient.setdefault(patient, []).append(number)
        kind = HammingDistances if settings.by == "hamming" else L2Distances
        self._distances: SlideDistances = kind(mosaics, threads)
        self._admitted = np.ones(mosaics.n_slides, bool) if admitted is None else admitted.copy()
        if settings.labelled_only:
            self._admitted &= np.array([label is not None for label in labels], bool)

    def number_of(self, name: str) -> int | None:
        """The number of an archived slide, None where there is none of that name."""
        return self._numbers.get(name)

    @property
    def admitted(self) -> Mask:
        """Which slides (S,) may answer, whoever asks."""
        return self._admitted

    def patients_of(self, query: Mosaic) -> set[str]:
        """The patients that a slide is of: its own, else those of archived slides that it is."""
        if query.patient is not None:
            return {query.patient}
        own = (self._patients[number] for number in self._own_slides(query))
        return {patient for patient in own if patient is not None}

    def search(self, query: Mosaic, label: str | None = None) -> SlideAnswer:
        """Answer for one slide, archived or not; ``label`` is its true class if known."""
        settings = self.settings
        found = self.nearest(query)
        labels = [self.labels[slide] for slide in found.slides.tolist()]
        distances = found.distances.tolist()
        return SlideAnswer(
            query=query.name,
            label=label,
            patient=query.patient,
            patches=query.patches,
            mosaic=query.size,
            by=settings.by,
            majorities=tuple(_majority(k, labels, distances) for k in settings.majorities),
            neighbours=tuple(
                self._neighbour(query, *one)
                for one in zip(found.slides.tolist(), distances, strict=True)
            ),
        )

    def nearest(self, query: Mosaic) -> Nearest:
        """The k nearest slides by number, without words or vote."""
        return self._distances.nearest(query, self._admits(query), self.settings.k)

    def _admits(self, query: Mosaic) -> Mask:
        admitted = self._admitted.copy()
        if self.settings.exclude_same != "none":
            admitted[self._own_slides(query)] = False
        if self.settings.exclude_same == "patient":
            for patient in self.patients_of(query):
                admitted[self._of_patient.get(patient, [])] = False
        return admitted

    def _own_slides(self, query: Mosaic) -> list[int]:
        """Slides with the query's name, or with its content under another."""
        number = self.number_of(query.name)
        own = set() if number is None else {number}
        if any(query.content):
            content = np.frombuffer(query.content, np.uint8)
            own |= set(np.flatnonzero((self.mosaics.contents == content).all(axis=1)).tolist())
        return sorted(own)

    def _neighbour(self, query: Mosaic, slide: int, distance: float) -> SlideNeighbour:
        matches: list[Match] = []
        if self.settings.matches:
            pairs = self._distances.pairs(query, slide)
            best = np.argsort(pairs.distances, kind="stable")[: self.settings.matches]
            coords = self.mosaics.coords[self.mosaics.entries(slide)]
            for place in best.tolist():
                x, y = query.coords[place].tolist()
                found_x, found_y = coords[pairs.partners[place]].tolist()
                match = Match((x, y), (found_x, found_y), float(pairs.distances[place]))
                matches.append(match)
        return SlideNeighbour(
            slide=self._names[slide],
            label=self.labels[slide],
            patient=self._patients[slide],
            distance=distance,
            patches=int(self.mosaics.patches[slide]),
            matches=tuple(matches),
        )


def _majority(k: int, labels: Sequence[str | None], distances: Sequence[float]) -> Majority:
    vote = tally(labels[:k], distances[:k], 1.0)
    return Majority(k, vote.prediction, vote.confidence, vote.votes)
