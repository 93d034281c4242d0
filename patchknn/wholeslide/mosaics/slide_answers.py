"""What a search for slides answers, and how it is written as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from patchknn.archive.snapshot import patch_id


class Match(NamedTuple):
    """Two patches that are alike: level-0 pixels of the query's and of the neighbour's."""

    query: tuple[int, int]
    found: tuple[int, int]
    distance: float


class SlideNeighbour(NamedTuple):
    """One archived slide, how far it is, and its patches that are most like the query's.

    ``fields`` are those of its records that were asked for, None where none were.
    """

    slide: str
    label: str | None
    patient: str | None
    distance: float
    patches: int
    matches: tuple[Match, ...]
    fields: dict[str, Any] | None = None

    def as_json(self, query: str) -> dict[str, Any]:
        """The object under ``neighbours``; a patch is called as ``archive list`` calls it."""
        fields = {} if self.fields is None else {"fields": self.fields}
        return {
            "slide": self.slide,
            "label": self.label,
            "patient": self.patient,
            "distance": self.distance,
            "patches": self.patches,
            "matches": [
                {
                    "query": patch_id(query, *match.query),
                    "id": patch_id(self.slide, *match.found),
                    "distance": match.distance,
                }
                for match in self.matches
            ],
            **fields,
        }


class Majority(NamedTuple):
    """The vote of the nearest ``k`` slides; without votes ``prediction`` is None."""

    k: int
    prediction: str | None
    confidence: float | None
    votes: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The object under ``majority``."""
        return {
            "prediction": self.prediction,
            "confidence": self.confidence,
            "votes": self.votes,
        }


class SlideAnswer(NamedTuple):
    """The answer for one slide; ``label`` is its true class where that is known.

    ``patches`` it has, of which ``mosaic`` stood for it. ``majorities`` are by ascending k.
    """

    query: str
    label: str | None
    patient: str | None
    patches: int
    mosaic: int
    by: str
    majorities: tuple[Majority, ...]
    neighbours: tuple[SlideNeighbour, ...]

    @property
    def prediction(self) -> str | None:
        """That of all neighbours."""
        return self.majorities[-1].prediction

    @property
    def confidence(self) -> float | None:
        """The share of votes that the prediction has."""
        return self.majorities[-1].confidence

    def as_json(self) -> dict[str, Any]:
        """One line of NDJSON."""
        return {
            "query": self.query,
            "label": self.label,
            "patient": self.patient,
            "patches": self.patches,
            "mosaic": self.mosaic,
            "by": self.by,
            "prediction": self.prediction,
            "confidence": self.confidence,
            "majority": {str(one.k): one.as_json() for one in self.majorities},
            "neighbours": [one.as_json(self.query) for one in self.neighbours],
        }
