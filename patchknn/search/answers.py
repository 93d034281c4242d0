"""What a search answers, and how it is written as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple


def cell(value: Any) -> Any:
    """A value of a record as a table has it: true and false as in JSON, others as they are."""
    return str(value).lower() if isinstance(value, bool) else value


class Neighbour(NamedTuple):
    """One archived patch; ``row`` counts over the snapshot, ``hamming`` is in bits.

    ``l2`` is the distance of the features, the query's rounded to the archive's dtype. ``x`` and
    ``y`` are level-0 pixels, −1 for a plain image. ``fields`` are those of its slide's and
    patient's records that were asked for, by name, None where none were.
    """

    row: int
    id: str
    label: str | None
    hamming: int
    l2: float
    source: str
    x: int
    y: int
    patient: str | None
    fields: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object under ``neighbours``."""
        fields = {} if self.fields is None else {"fields": self.fields}
        return {
            "id": self.id,
            "label": self.label,
            "hamming": self.hamming,
            "l2": self.l2,
            "source": self.source,
            "x": self.x,
            "y": self.y,
            "patient": self.patient,
            **fields,
        }


class ClassifierOpinion(NamedTuple):
    """What the bundle's classifier says; ``agrees`` is None where the vote predicts nothing."""

    prediction: str
    probability: float
    agrees: bool | None

    def as_json(self) -> dict[str, Any]:
        """The object under ``classifier``."""
        return {
            "prediction": self.prediction,
            "probability": self.probability,
            "agrees": self.agrees,
        }


class Judgement(NamedTuple):
    """What a calibrated archive says of an answer.

    ``confidence`` is None without a prediction. ``prediction_set`` holds the true class in a share
    ``coverage`` of answers, the most probable first. ``stale``: rows or labels changed since the
    calibration. ``strangeness`` above 1 is beyond 99 in 100 of the archive's own rows, None where
    it is infinite.
    """

    confidence: float | None
    stale: bool
    coverage: float
    prediction_set: tuple[str, ...]
    out_of_distribution: bool
    strangeness: float | None

    def as_json(self) -> dict[str, Any]:
        """What it adds to the answer's object."""
        return {
            "calibrated_confidence": self.confidence,
            "calibration_stale": self.stale,
            "coverage": self.coverage,
            "prediction_set": list(self.prediction_set),
            "out_of_distribution": self.out_of_distribution,
            "strangeness": self.strangeness,
        }


class Answer(NamedTuple):
    """The answer to one query; ``label`` is the query's true class where that is known.

    ``ball`` counts the rows of the first stage after filters (before ``--max-per``), ``radius``
    in bits is None where another coarse stage chose them; ``widened``: more rows were taken than
    the settings asked for at first, to find k neighbours. ``explain`` says what the search took,
    ``judgement`` what the archive's calibration makes of it, where that was asked for.
    """

    query: str
    label: str | None
    prediction: str | None
    confidence: float | None
    weighted_confidence: float | None
    votes: dict[str, int]
    radius: int | None
    ball: int
    widened: bool
    abstained: bool
    classifier: ClassifierOpinion | None
    neighbours: tuple[Neighbour, ...]
    explain: dict[str, Any] | None = None
    judgement: Judgement | None = None

    @property
    def sureness(self) -> float | None:
        """The calibrated confidence where there is a judgement, else the share of votes."""
        return self.confidence if self.judgement is None else self.judgement.confidence

    def as_json(self) -> dict[str, Any]:
        """One line of ``query``'s NDJSON."""
        explain = {} if self.explain is None else {"explain": self.explain}
        judged = {} if self.judgement is None else self.judgement.as_json()
        return {
            "query": self.query,
            "label": self.label,
            "prediction": self.prediction,
            "confidence": self.confidence,
            "weighted_confidence": self.weighted_confidence,
            "votes": self.votes,
            "radius": self.radius,
            "ball": self.ball,
            "widened": self.widened,
            "abstained": self.abstained,
            "classifier": None if self.classifier is None else self.classifier.as_json(),
            **judged,
            "neighbours": [neighbour.as_json() for neighbour in self.neighbours],
            **explain,
        }


class Failure(NamedTuple):
    """A query that could not be answered, and why in one sentence."""

    query: str
    error: str

    def as_json(self) -> dict[str, Any]:
        """One line of ``query``'s NDJSON."""
        return {"query": self.query, "error": self.error}
