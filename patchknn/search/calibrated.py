"""Answers with what the archive's calibration makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from patchknn.archive.calibration import Calibration, calibration_of
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import ConflictError, InputError, UsageError
from patchknn.search.answers import Answer, Failure, Judgement
from patchknn.search.calibration import (
    calibrated_confidences,
    padded_priors,
    prediction_sets,
)
from patchknn.search.class_scores import Voting, class_probabilities
from patchknn.search.query import Query, rounded_feature
from patchknn.search.settings import SearchSettings
from patchknn.search.strangeness import neighbour_distances, out_of_distribution, strangeness

_REMEDY = "run 'patchknn archive calibrate {archive}{options}'"


def calibration_settings(settings: SearchSettings, bits: int) -> dict[str, Any]:
    """What of the settings decides which neighbours vote, and how: ready for JSON."""
    hamming = settings.coarse == "hamming"
    return {
        "k": settings.k,
        "coarse": settings.coarse,
        "radius": settings.radius if hamming else None,
        "max_radius": settings.widest_radius(bits) if hamming else None,
        "candidates": None if hamming else settings.candidates,
        "max_per": None if settings.max_per is None else list(settings.max_per),
        "labelled_only": settings.labelled_only,
        "exclude_same": settings.exclude_same,
    }


class Calibrated:
    """Judges answers of one snapshot by its calibration.

    Raises InputError where it has none, ConflictError where that was made with other settings or
    for another ``coverage``: each with the command that makes one.
    """

    def __init__(
        self, snapshot: Snapshot, settings: SearchSettings, *, coverage: float | None = None
    ) -> None:
        found = calibration_of(snapshot.manifest, snapshot.path)
        wanted = calibration_settings(settings, snapshot.settings.bits)
        if found is None:
            usual = calibration_settings(SearchSettings(), snapshot.settings.bits)
            other = {name: value for name, value in wanted.items() if value != usual[name]}
            other.pop("exclude_same", None)
            remedy = _remedy(snapshot, other, coverage)
            message = f"{snapshot.path} is not calibrated: {remedy}."
            raise InputError(message)
        self.calibration: Calibration = found
        self._check(snapshot, wanted, coverage)
        if settings.labels is not None or settings.where is not None:
            message = (
                "a calibration holds for searches of all rows: leave --label and --where away."
            )
            raise UsageError(message)
        self.stale = found.is_stale(snapshot.manifest)
        self._snapshot = snapshot
        self._settings = settings
        # Classes that came since are no reason to fail: the calibration is stale, and says so.
        self._classes = tuple(dict.fromkeys((*found.priors, *snapshot.classes)))
        self._numbers = {name: number for number, name in enumerate(self._classes)}
        self._priors = padded_priors(found, self._classes)

    @property
    def warning(self) -> str | None:
        """What is to be said where rows or labels changed since the calibration."""
        if not self.stale:
            return None
        calibration, path = self.calibration, self._snapshot.path
        return (
            f"the calibration of {path} is stale: it was made of {calibration.rows} rows on "
            f"{calibration.time[:10]}, and rows or labels changed since; run 'patchknn archive "
            f"calibrate {path}' again."
        )

    def beside(
        self, queries: Sequence[Query | Failure], answers: Sequence[Answer | Failure]
    ) -> list[Answer | Failure]:
        """The answers with a ``judgement``; ``--abstain-below`` is about its confidence."""
        pairs = [
            (query, answer)
            for query, answer in zip(queries, answers, strict=True)
            if isinstance(query, Query) and isinstance(answer, Answer)
        ]
        judged = iter(self._judgements(pairs))
        return [
            self._with(answer, next(judged)) if isinstance(answer, Answer) else answer
            for answer in answers
        ]

    def _judgements(self, pairs: Sequence[tuple[Query, Answer]]) -> list[Judgement]:
        if not pairs:
            return []
        calibration, voting = self.calibration, self._voting(pairs)
        confidences = calibrated_confidences(calibration.mapping, voting, self._priors)
        probabilities = class_probabilities(voting, self._priors)
        sets = prediction_sets(probabilities, calibration.threshold)
        distances = neighbour_distances(voting)
        scores = strangeness(calibration, distances)
        out = out_of_distribution(calibration, distances)
        return [
            Judgement(
                confidence=None if np.isnan(confidence) else float(confidence),
                stale=self.stale,
                coverage=calibration.coverage,
                prediction_set=tuple(
                    self._classes[number]
                    for number in np.argsort(-likely, kind="stable").tolist()
                    if held[number]
                ),
                out_of_distribution=bool(is_out),
                strangeness=float(score) if np.isfinite(score) else None,
            )
            for confidence, likely, held, is_out, score in zip(
                confidences, probabilities, sets, out, scores, strict=True
            )
        ]

    def _voting(self, pairs: Sequence[tuple[Query, Answer]]) -> Voting:
        shape = len(pairs), self._settings.k
        labels, distances = np.full(shape, -2), np.full(shape, np.nan)
        norms, predictions = np.zeros(len(pairs)), np.full(len(pairs), -1)
        stored = self._snapshot.settings
        for row, (query, answer) in enumerate(pairs):
            feature = rounded_feature(
                query.feature, query.name, stored.feature_dim, stored.feature_dtype
            )
            norms[row] = np.linalg.norm(feature.astype(np.float64))
            for rank, neighbour in enumerate(answer.neighbours):
                name = neighbour.label
                labels[row, rank] = -1 if name is None else self._numbers[name]
                distances[row, rank] = neighbour.l2
            if answer.prediction is not None:
                predictions[row] = self._numbers[answer.prediction]
        return Voting(labels, distances, norms, predictions)

    def _with(self, answer: Answer, judgement: Judgement) -> Answer:
        settings = self._settings
        abstained = sum(answer.votes.values()) < settings.votes_needed
        if settings.abstain_below is not None and not abstained:
            confidence = judgement.confidence
            abstained = confidence is None or confidence < settings.abstain_below
        return answer._replace(judgement=judgement, abstained=abstained)

    def _check(self, snapshot: Snapshot, wanted: dict[str, Any], coverage: float | None) -> None:
        made = self.calibration.settings
        # An archive without patients, or a query that is none of its rows, leaves out what it can.
        other = {
            name: value
            for name, value in wanted.items()
            if name != "exclude_same" and made.get(name) != value
        }
        if other:
            told = ", ".join(f"{_option(name)} {_word(made.get(name))}" for name in other)
            remedy = _remedy(snapshot, other, coverage)
            message = (
                f"{snapshot.path} was calibrated with {told}, which is not asked for here: ask for "
                f"it, or {remedy}."
            )
            raise ConflictError(message)
        if coverage is not None and coverage != self.calibration.coverage:
            remedy = _remedy(snapshot, {}, coverage)
            message = (
                f"{snapshot.path} was calibrated for --coverage {self.calibration.coverage}, not "
                f"{coverage}: {remedy}."
            )
            raise ConflictError(message)


def _remedy(snapshot: Snapshot, other: dict[str, Any], coverage: float | None) -> str:
    options = "".join(
        f" {_option(name)}" + ("" if value is True else f" {_word(value)}")
        for name, value in other.items()
        if value is not None and value is not False
    )
    if coverage is not None:
        options += f" --coverage {coverage}"
    return _REMEDY.format(archive=snapshot.path, options=options)


def _option(name: str) -> str:
    return "--labelled" if name == "labelled_only" else f"--{name.replace('_', '-')}"


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
