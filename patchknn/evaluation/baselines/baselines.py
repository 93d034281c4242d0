"""Baselines that keep one honest: nearest neighbours by what any picture shows, untrained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.datasets.patches import Patch
from patchknn.evaluation.baselines.colour_vectors import LEVELS, colour_histograms, mean_colours
from patchknn.evaluation.baselines.picture_pool import BATCH, PicturePool, row_batches
from patchknn.evaluation.evaluate import report_settings
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.exhaustive import ExhaustiveSearch, Found
from patchknn.evaluation.outcomes import Outcome, OutcomeCollector
from patchknn.evaluation.pictures import Picture
from patchknn.jobs.cpus import available_cpus
from patchknn.search.answers import Answer
from patchknn.search.neighbours import by_query, describe
from patchknn.search.query import Query, rounded_feature
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.votes import tally

Vectors = npt.NDArray[np.float32]
_NO_SETTINGS: dict[str, Any] = {}


class Method(NamedTuple):
    """A way to see pictures: ``describe`` makes vectors (n, ``dim``) float32 of n of them.

    ``settings`` are told beside its figures.
    """

    name: str
    dim: int
    describe: Callable[[Sequence[Picture]], Vectors]
    settings: dict[str, Any] = _NO_SETTINGS


class Asked(NamedTuple):
    """A query, and the patch that it is of; None where it asks for a row of the archive."""

    query: Query
    patch: Patch | None = None


MEAN_COLOUR = Method("mean-colour", 3, mean_colours)
COLOUR_HISTOGRAM = Method("colour-histogram", LEVELS**3, colour_histograms)


class Baselines:
    """The pictures of an archive as several methods see them, each searched through.

    Every picture is read once, for all methods together, when this is made: vectors are kept in
    memory, 4 bytes a number. A row whose picture is gone cannot be found, a query without one has
    no neighbours. ``on_read`` is told of so many rows more. Filters and the vote are those of
    ``settings``. Raises as ExhaustiveSearch does.
    """

    def __init__(
        self,
        pool: PicturePool,
        methods: Sequence[Method],
        settings: SearchSettings,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self.methods = tuple(methods)
        self._pool = pool
        self._snapshot: Snapshot = pool.snapshot
        self._settings = settings
        self._reader = RowReader(self._snapshot)
        self._stored = [
            {
                shard.first_row: np.full((shard.n, method.dim), np.nan, np.float32)
                for shard in self._snapshot.searched
            }
            for method in methods
        ]
        self.unread_rows = self._read_rows(on_read)
        self._searches = [
            ExhaustiveSearch(self._snapshot, settings, list(stored.values()), available_cpus())
            for stored in self._stored
        ]

    def evaluate(self, asked: Iterable[Asked]) -> list[Evaluation]:
        """What comes of labelled queries by each method; what cannot be read counts as wrong.

        How many rows and queries were not read is told in the settings, as ``unread_rows`` and
        ``unread_queries``.
        """
        classes = self._snapshot.classes
        collectors = [OutcomeCollector(self._settings.k, classes) for _ in self.methods]
        unread = 0
        for block, vectors in self._seen(asked):
            queries = [one.query for one in block]
            for number, collector in enumerate(collectors):
                found = self._found(number, queries, vectors[number])
                for outcome in self._outcomes(queries, vectors[number], found):
                    collector.add(outcome)
            unread += int(np.isnan(vectors[0]).any(axis=1).sum()) if vectors else 0
        shared = report_settings(self._snapshot, self._settings) | {
            "unread_rows": self.unread_rows,
            "unread_queries": unread,
        }
        return [
            Evaluation(
                method=method.name,
                outcomes=collector.outcomes(),
                known_classes=classes,
                settings=shared | method.settings,
            )
            for method, collector in zip(self.methods, collectors, strict=True)
        ]

    def answers(self, asked: Sequence[Asked]) -> dict[str, list[Answer]]:
        """The answers of each method, by its name, to queries in their order.

        Queries have features, or the code of their row: a neighbour's ``hamming`` is between the
        codes of the archive, in which the method takes no part.
        """
        answers: dict[str, list[Answer]] = {method.name: [] for method in self.methods}
        for block, vectors in self._seen(asked):
            queries = [one.query for one in block]
            for number, method in enumerate(self.methods):
                found = self._found(number, queries, vectors[number])
                answers[method.name] += self._answers(queries, vectors[number], found)
        return answers

    def _read_rows(self, on_read: Callable[[int], None] | None) -> int:
        unread = 0
        batches = row_batches(self._snapshot)
        for rows, pictures in self._pool.read(batches, lambda f, some: f.of_rows(some.tolist())):
            good = [place for place, picture in enumerate(pictures) if picture is not None]
            unread += len(rows) - len(good)
            for method, stored in zip(self.methods, self._stored, strict=True):
                vectors = method.describe([one for one in pictures if one is not None])
                for shard, among, local in self._reader.by_shard(rows[good]):
                    stored[shard.first_row][local] = vectors[among]
            if on_read is not None:
                on_read(len(rows))
        return unread

    def _seen(self, asked: Iterable[Asked]) -> Iterator[tuple[list[Asked], list[Vectors]]]:
        """Queries in blocks, with the vectors (n, D) that each method has for them, or NaN."""
        stream = iter(asked)
        blocks = iter(lambda: list(islice(stream, BATCH)), [])
        for block, pictures in self._pool.read(
            blocks, lambda finder, some: finder.of_patches([p for _, p in some if p is not None])
        ):
            of_patches = [place for place, (_, patch) in enumerate(block) if patch is not None]
            readable = [
                place
                for place, picture in zip(of_patches, pictures, strict=True)
                if picture is not None
            ]
            rows = [
                (place, query.row)
                for place, (query, patch) in enumerate(block)
                if patch is None and query.row is not None
            ]
            vectors = []
            for method, stored in zip(self.methods, self._stored, strict=True):
                seen = np.full((len(block), method.dim), np.nan, np.float32)
                seen[readable] = method.describe([one for one in pictures if one is not None])
                numbers = np.array([row for _, row in rows], np.int64)
                places = np.array([place for place, _ in rows], np.intp)
                for shard, among, local in self._reader.by_shard(numbers):
                    seen[places[among]] = stored[shard.first_row][local]
                vectors.append(seen)
            yield block, vectors

    def _found(self, number: int, queries: Sequence[Query], vectors: Vectors) -> list[Found | None]:
        readable = np.flatnonzero(np.isfinite(vectors).all(axis=1)).tolist()
        results: list[Found | None] = [None] * len(queries)
        found = self._searches[number].search([queries[n] for n in readable], vectors[readable])
        for place, one in zip(readable, found, strict=True):
            results[place] = one
        return results

    def _outcomes(
        self, queries: Sequence[Query], vectors: Vectors, found: Sequence[Found | None]
    ) -> Iterator[Outcome]:
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1).tolist()
        labels = iter(self._reader.labels(_joined(found)).tolist())
        classes = self._snapshot.classes
        for query, one, norm in zip(queries, found, norms, strict=True):
            rows = () if one is None else tuple(one.rows.tolist())
            distances = () if one is None else tuple(one.distances.tolist())
            own = tuple(classes[n] if n >= 0 else None for n in islice(labels, len(rows)))
            vote = tally(own, distances, norm)
            yield Outcome(
                query=query.name,
                label=query.label or "",
                prediction=vote.prediction,
                confidence=vote.confidence,
                weighted_confidence=vote.weighted_confidence,
                neighbours=own,
                patient=query.patient,
                row=query.row,
                rows=rows,
                distances=distances,
                norm=None if math.isnan(norm) else norm,
            )

    def _answers(
        self, queries: Sequence[Query], vectors: Vectors, found: Sequence[Found | None]
    ) -> Iterator[Answer]:
        counts = [0 if one is None else len(one.rows) for one in found]
        distances = [np.zeros(0), *(one.distances for one in found if one is not None)]
        codes = np.repeat(self._codes(queries), counts, axis=0)
        neighbours = describe(self._reader, _joined(found), np.concatenate(distances), codes)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1).tolist()
        for query, own, norm in zip(queries, by_query(neighbours, counts), norms, strict=True):
            vote = tally([one.label for one in own], [one.l2 for one in own], norm)
            yield Answer(
                query=query.name,
                label=query.label,
                prediction=vote.prediction,
                confidence=vote.confidence,
                weighted_confidence=vote.weighted_confidence,
                votes=vote.votes,
                radius=None,
                ball=len(own),
                widened=False,
                abstained=vote.n_votes < self._settings.votes_needed,
                classifier=None,
                neighbours=own,
            )

    def _codes(self, queries: Sequence[Query]) -> npt.NDArray[np.uint8]:
        bundle: Bundle = self._snapshot.bundle()
        stored = self._snapshot.settings
        codes = np.zeros((len(queries), stored.bits // 8), np.uint8)
        for number, query in enumerate(queries):
            if query.code is None:
                own = (query.feature, query.name, stored.feature_dim, stored.feature_dtype)
                codes[number] = bundle.codes(rounded_feature(*own)[None])[0]
            else:
                codes[number] = query.code
        return codes


def _joined(found: Sequence[Found | None]) -> npt.NDArray[np.int64]:
    rows = [one.rows for one in found if one is not None]
    return np.concatenate([np.zeros(0, np.int64), *rows])
