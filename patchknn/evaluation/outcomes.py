"""What came of many queries, as columns: of a hundred thousand they take some thirty megabytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

NO_LABEL = -1
NO_NEIGHBOUR = -2
_BLOCK = 4096
_NAMES = frozenset({"classes", "patients", "queries"})

Ints = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """What came of one query whose true class is ``label``.

    ``neighbours`` are their labels, ``rows`` their numbers in the snapshot, ``distances`` the L2
    from the query, whose length is ``norm``. ``radius``, ``ball``, ``empty`` and ``widened``
    describe the first stage; they are None for a method that has none, as ``classifier`` with its
    ``probability`` and ``l2_true`` (the number of true neighbours by exhaustive L2) are where there
    is no such thing. ``row`` is the query's own where it is archived.
    """

    query: str
    label: str
    prediction: str | None
    confidence: float | None
    neighbours: tuple[str | None, ...]
    weighted_confidence: float | None = None
    radius: int | None = None
    ball: int | None = None
    empty: bool | None = None
    widened: bool | None = None
    classifier: str | None = None
    probability: float | None = None
    l2_true: int | None = None
    patient: str | None = None
    row: int | None = None
    rows: tuple[int, ...] = ()
    distances: tuple[float, ...] = ()
    norm: float | None = None


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes of n queries with up to k neighbours, in the queries' order.

    ``label``, ``prediction``, ``neighbours`` and ``classifier`` count into ``classes``, −1 where
    there is none, −2 where there is no neighbour; ``patient`` counts into ``patients``, −1 where it
    is unknown. Other numbers that do not exist are −1, fractions NaN.
    """

    classes: tuple[str, ...]
    patients: tuple[str, ...]
    queries: tuple[str, ...]
    label: Ints  # (n,)
    prediction: Ints  # (n,)
    confidence: Floats  # (n,)
    weighted_confidence: Floats  # (n,)
    neighbours: Ints  # (n, k)
    rows: Rows  # (n, k)
    distances: Floats  # (n, k)
    norm: Floats  # (n,)
    radius: Ints  # (n,)
    ball: Rows  # (n,)
    empty: Flags  # (n,)
    widened: Flags  # (n,)
    classifier: Ints  # (n,)
    probability: Floats  # (n,)
    l2_true: Ints  # (n,)
    patient: Ints  # (n,)
    row: Rows  # (n,)

    @classmethod
    def of(cls, outcomes: Iterable[Outcome], k: int, classes: Sequence[str] = ()) -> Self:
        """Columns of single outcomes; names of ``classes`` have the first numbers."""
        collector = OutcomeCollector(k, classes)
        for outcome in outcomes:
            collector.add(outcome)
        return cls(**vars(collector.outcomes()))

    def __len__(self) -> int:
        return len(self.queries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outcomes):
            return NotImplemented
        return all(
            np.array_equal(mine, its, equal_nan=mine.dtype.kind == "f")
            if isinstance(mine, np.ndarray)
            else mine == its
            for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def k(self) -> int:
        """How many neighbours were asked for."""
        return int(self.neighbours.shape[1])

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is the true class."""
        return np.asarray(self.prediction == self.label)

    @property
    def correct_by_classifier(self) -> Flags:
        """The same of the classifier, −1 where there is none."""
        return np.where(self.classifier < 0, -1, self.classifier == self.label).astype(np.int8)

    @property
    def true_neighbours(self) -> npt.NDArray[np.int64]:
        """How many neighbours of each query are of its class."""
        return np.asarray((self.neighbours == self.label[:, None]).sum(axis=1))

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Numbers (n,) that are equal for queries of one patient; unknown ones stand alone."""
        unknown = self.patient < 0
        numbers = self.patient.astype(np.int64)
        numbers[unknown] = len(self.patients) + np.arange(int(unknown.sum()))
        return numbers

    def select(self, chosen: npt.NDArray[Any]) -> Outcomes:
        """Those of the given numbers or truth values, in their order."""
        numbers = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        columns = {name: value[numbers] for name, value in vars(self).items() if name not in _NAMES}
        queries = tuple(self.queries[number] for number in numbers.tolist())
        return Outcomes(self.classes, self.patients, queries, **columns)


class OutcomeCollector:
    """Takes outcomes one by one."""

    def __init__(self, k: int, classes: Sequence[str] = ()) -> None:
        self._k = k
        self._classes = {name: number for number, name in enumerate(classes)}
        self._patients: dict[str, int] = {}
        self._queries: list[str] = []
        self._pending: list[Outcome] = []
        self._blocks: list[dict[str, npt.NDArray[Any]]] = []

    def __len__(self) -> int:
        return len(self._queries)

    def add(self, outcome: Outcome) -> None:
        """Take one."""
        self._queries.append(outcome.query)
        self._pending.append(outcome)
        if len(self._pending) == _BLOCK:
            self._pack()

    def outcomes(self) -> Outcomes:
        """All that were taken."""
        if self._pending or not self._blocks:
            self._pack()
        columns = {
            name: np.concatenate([block[name] for block in self._blocks])
            for name in self._blocks[0]
        }
        return Outcomes(
            classes=tuple(self._classes),
            patients=tuple(self._patients),
            queries=tuple(self._queries),
            **columns,
        )

    def _pack(self) -> None:
        given, self._pending = self._pending, []
        self._blocks.append(
            {
                "label": self._numbers([one.label for one in given]),
                "prediction": self._numbers([one.prediction for one in given]),
                "confidence": _floats([one.confidence for one in given]),
                "weighted_confidence": _floats([one.weighted_confidence for one in given]),
                "neighbours": self._padded(
                    [[self._number(name) for name in one.neighbours] for one in given],
                    *(NO_NEIGHBOUR, np.int32),
                ),
                "rows": self._padded([one.rows for one in given], -1, np.int64),
                "distances": self._padded([one.distances for one in given], np.nan, np.float64),
                "norm": _floats([one.norm for one in given]),
                "radius": _ints([one.radius for one in given], np.int32),
                "ball": _ints([one.ball for one in given], np.int64),
                "empty": _ints([one.empty for one in given], np.int8),
                "widened": _ints([one.widened for one in given], np.int8),
                "classifier": self._numbers([one.classifier for one in given]),
                "probability": _floats([one.probability for one in given]),
                "l2_true": _ints([one.l2_true for one in given], np.int32),
                "patient": np.array(
                    [
                        -1
                        if one.patient is None
                        else self._patients.setdefault(one.patient, len(self._patients))
                        for one in given
                    ],
                    np.int32,
                ),
                "row": _ints([one.row for one in given], np.int64),
            }
        )

    def _number(self, name: str | None) -> int:
        return NO_LABEL if name is None else self._classes.setdefault(name, len(self._classes))

    def _numbers(self, names: Sequence[str | None]) -> Ints:
        return np.array([self._number(name) for name in names], np.int32)

    def _padded(self, rows: Sequence[Sequence[Any]], nothing: Any, dtype: Any) -> npt.NDArray[Any]:
        values = np.full((len(rows), self._k), nothing, dtype)
        for number, row in enumerate(rows):
            values[number, : len(row)] = row[: self._k]
        return values


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _ints(values: Sequence[int | None], dtype: Any) -> npt.NDArray[Any]:
    return np.array([-1 if value is None else value for value in values], dtype)
