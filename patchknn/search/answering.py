"""Queries made ready for a search, and what it found for them as answers, however it searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.errors import ConflictError, PatchknnError, UsageError
from patchknn.search.answers import Answer, ClassifierOpinion, Failure, Neighbour
from patchknn.search.found import Found, FoundMany
from patchknn.search.neighbours import by_query, describe
from patchknn.search.parts import Codes
from patchknn.search.query import Query, rounded_feature
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.votes import Tally, tally

Features = npt.NDArray[Any]
Explain = Callable[[Found], dict[str, Any]]


class Ready(NamedTuple):
    """Queries that can be searched for, and what is told of those that cannot.

    ``features`` has (D,) for each of ``queries``, ``codes`` (K/8,). ``results``: for each that was
    given a Failure, or None where it is the next of ``queries``.
    """

    results: Sequence[Failure | None]
    queries: Sequence[Query]
    features: Sequence[Features]
    codes: Sequence[Codes]


class Answering:
    """What comes before a search of one snapshot and after it: the code, the words, the vote.

    Raises UsageError for a radius beyond the bits, ConflictError where the archive's encoder does
    not fit it.
    """

    def __init__(self, snapshot: Snapshot, settings: SearchSettings, reader: RowReader) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._reader = reader
        self._bundle = snapshot.bundle()
        _check(settings, self._bundle, snapshot.settings.bits)

    def prepared(self, query: Query) -> tuple[Features, Codes]:
        """The query's features as the archive would store them, and its code.

        Raises InputError naming the query where its features do not fit.
        """
        stored = self._snapshot.settings
        feature = rounded_feature(
            query.feature, query.name, stored.feature_dim, stored.feature_dtype
        )
        # One by one: the last bits of a matrix product hang on the rows beside.
        code = self._bundle.codes(feature[None])[0] if query.code is None else query.code
        return feature, code

    def ready(self, block: Sequence[Query | Failure], check: Callable[[Query], None]) -> Ready:
        """Those of the block that ``check`` and ``prepared`` let through, and the failures."""
        results: list[Failure | None] = []
        ready: list[tuple[Query, Features, Codes]] = []
        for query in block:
            if isinstance(query, Failure):
                results.append(query)
                continue
            try:
                check(query)
                ready.append((query, *self.prepared(query)))
                results.append(None)
            except PatchknnError as error:
                results.append(Failure(query.name, str(error)))
        queries = [query for query, _, _ in ready]
        features = [feature for _, feature, _ in ready]
        return Ready(results, queries, features, [code for _, _, code in ready])

    def answers(
        self, ready: Ready, found: FoundMany, explain: Explain | None
    ) -> Iterator[Answer | Failure]:
        """What becomes of each query that was given; ``found`` is of those that were ready."""
        _, queries, features, codes = ready
        answers = iter(self.of(queries, features, codes, found, explain))
        for result in ready.results:
            yield next(answers) if result is None else result

    def of(
        self,
        queries: Sequence[Query],
        features: Sequence[Features],
        codes: Sequence[Codes],
        found: FoundMany,
        explain: Explain | None,
    ) -> list[Answer]:
        """The answers to ``queries``; ``explain`` says what each search took."""
        if not queries:
            return []
        counts = np.diff(found.offsets)
        neighbours = describe(
            self._reader,
            found.rows,
            found.distances,
            np.repeat(np.stack(codes), counts, axis=0),
        )
        norms = np.linalg.norm(np.stack(features).astype(np.float64), axis=1)
        pairs = zip(
            queries,
            features,
            norms.tolist(),
            found,
            by_query(neighbours, counts.tolist()),
            strict=True,
        )
        return [self._answer(*one, explain=explain) for one in pairs]

    def _answer(
        self,
        query: Query,
        feature: Features,
        norm: float,
        found: Found,
        neighbours: tuple[Neighbour, ...],
        *,
        explain: Explain | None,
    ) -> Answer:
        vote = tally([n.label for n in neighbours], [n.l2 for n in neighbours], norm)
        return Answer(
            query=query.name,
            label=query.label,
            prediction=vote.prediction,
            confidence=vote.confidence,
            weighted_confidence=vote.weighted_confidence,
            votes=vote.votes,
            radius=found.radius,
            ball=found.ball,
            widened=found.widened,
            abstained=self._abstains(vote),
            classifier=self._classify(feature, vote.prediction),
            neighbours=neighbours,
            explain=None if explain is None else explain(found),
        )

    def _classify(self, feature: Features, prediction: str | None) -> ClassifierOpinion | None:
        probabilities = self._bundle.probabilities(feature[None])
        if probabilities is None:
            return None
        best = int(np.argmax(probabilities[0]))
        name = self._bundle.description.class_names[best]
        agrees = None if prediction is None else name == prediction
        return ClassifierOpinion(name, float(probabilities[0, best]), agrees)

    def _abstains(self, vote: Tally) -> bool:
        if vote.n_votes < self._settings.votes_needed:
            return True
        threshold = self._settings.abstain_below
        return threshold is not None and (vote.confidence is None or vote.confidence < threshold)


def _check(settings: SearchSettings, bundle: Bundle, bits: int) -> None:
    for option, radius in (
        ("--radius", settings.radius),
        ("--max-radius", settings.max_radius),
    ):
        if radius is not None and radius > bits:
            message = f"{option} {radius} is more than the archive's codes have bits ({bits})."
            raise UsageError(message)
    classifier, names = bundle.classifier, bundle.description.class_names
    if classifier is not None and len(classifier.weight) != len(names):
        message = (
            f"The encoder in {bundle.directory} names {len(names)} classes, but its "
            f"classifier knows {len(classifier.weight)}."
        )
        raise ConflictError(message)
