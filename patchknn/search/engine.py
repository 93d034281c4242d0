"""The two-stage search: coarse rows, ranked by the L2 of their features, then put to the vote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.errors import ConflictError, PatchknnError, UsageError
from patchknn.hamming import kernels
from patchknn.search.answers import Answer, ClassifierOpinion, Failure, Neighbour
from patchknn.search.coarse_annoy import AnnoyStage
from patchknn.search.coarse_l2 import L2Stage, hash_vectors
from patchknn.search.filters import QueryFilter, RowFilter
from patchknn.search.found import Found, FoundMany
from patchknn.search.neighbours import by_query, describe, hamming_to
from patchknn.search.pool import Demand
from patchknn.search.query import Query, all_finite, rounded_feature
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.two_stage import TwoStage
from patchknn.search.votes import Tally, tally
from patchknn.search.work import PATHS, Work

# Large enough that queries share what they read, small enough that answers stream.
BLOCK = 256
_NO_BITS = np.zeros(0, np.int64)

Features = npt.NDArray[Any]
Codes = npt.NDArray[np.uint8]


class Searcher:
    """Answers queries from one snapshot of an archive with one set of settings.

    Paper A, sections 2.4 and 2.5. ``threads`` help large balls and batches; answers do not hang
    on them. With ``explain`` every answer says what it took, and is found alone.

    Raises UsageError for a label that no row can have, a ``where`` that cannot be evaluated, a
    radius beyond the bits or kernels that are not there, ConflictError where the archive's encoder
    does not fit it, PatchknnError where Annoy is asked for and does not work.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        settings: SearchSettings,
        threads: int = 1,
        *,
        explain: bool = False,
    ) -> None:
        kernels.chosen()  # kernels that are forced and not there are no fault of a query
        self._explain = explain
        self.snapshot = snapshot
        self.settings = settings
        self.bundle: Bundle = snapshot.bundle()
        self._reader = RowReader(snapshot)
        # One more than there are is as many as any number beyond, and can be counted.
        self._k = min(settings.k, len(snapshot) + 1)
        self._filter = RowFilter(snapshot, settings, self._reader)
        self._check(snapshot.settings.bits)
        widest = settings.widest_radius(snapshot.settings.bits)
        self._two_stage = TwoStage(snapshot, self._reader, settings.radius, widest, threads)
        self._stage = self._coarse_stage()
        self._plain_demand = self._demand_of_features()
        stored = snapshot.settings
        self._dtype, self._shape = np.dtype(stored.feature_dtype), (stored.feature_dim,)

    @property
    def problems(self) -> Sequence[str]:
        """What was found wrong with the index so far, in sentences; no answer hangs on it."""
        return self.snapshot.cover.problems

    def search(self, query: Query) -> Answer:
        """Answer one query.

        Raises InputError naming the query where its features do not fit, or where
        ``exclude_same`` is ``patient`` and the query's patient is unknown.
        """
        feature, code = self._prepared(query)
        self._filter.check(query)
        (demand,) = self._demands([query], [code])
        if self._stage is None:
            found = self._two_stage.find(feature, code, demand)
        else:
            found = self._find_by_stage(self._stage, feature, demand)
        (answer,) = self._answers([query], [feature], [code], FoundMany.of([found]))
        return answer

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answer queries in their order; what cannot be answered passes as a Failure.

        They are taken in blocks of 256, whose answers are as ``search`` gives them.
        """
        stream = iter(queries)
        while block := list(islice(stream, BLOCK)):
            yield from self._search_block(block)

    def find(self, feature: Features, code: Codes | None = None) -> Found:
        """The rows nearest to features (D,) by number, without words or vote.

        ``code`` (K/8,) spares making it; ``exclude_same`` leaves nothing out, as no row is known
        to be the query's own.
        """
        demand = self._plain_demand
        if demand is None or code is None:
            (found,) = self.find_many(feature[None], None if code is None else code[None])
            return found
        if feature.dtype == self._dtype and feature.shape == self._shape:
            with suppress(ValueError):  # values that are not finite, which is said below
                return self._two_stage.find(feature, code, demand)
        stored = self.snapshot.settings
        feature = rounded_feature(feature, "features", stored.feature_dim, stored.feature_dtype)
        return self._two_stage.find(feature, code, demand)

    def find_many(self, features: Features, codes: Codes | None = None) -> FoundMany:
        """The same for features (Q, D) and ``codes`` (Q, K/8)."""
        demand = self._plain_demand
        if demand is not None and codes is not None and self._are_stored_features(features):
            return self._two_stage.find_many(features, codes, [demand] * len(features))
        queries = [
            Query("features", feature, code=None if codes is None else codes[number], patient="")
            for number, feature in enumerate(features)
        ]
        pairs = [self._prepared(query) for query in queries]
        own_codes = [code for _, code in pairs]
        demands = self._demands(queries, own_codes)
        return self._find_block([feature for feature, _ in pairs], own_codes, demands)

    def _are_stored_features(self, features: Features) -> bool:
        """Whether features (Q, D) are as the archive would store them."""
        alike = features.dtype == self._dtype and features.shape[1:] == self._shape
        return alike and len(features) > 0 and all_finite(features)

    def _search_block(self, block: Sequence[Query | Failure]) -> Iterator[Answer | Failure]:
        results: list[Answer | Failure | None] = []
        ready: list[tuple[Query, Features, Codes]] = []
        for query in block:
            if isinstance(query, Failure):
                results.append(query)
                continue
            try:
                self._filter.check(query)
                ready.append((query, *self._prepared(query)))
                results.append(None)
            except PatchknnError as error:
                results.append(Failure(query.name, str(error)))
        queries = [query for query, _, _ in ready]
        features = [feature for _, feature, _ in ready]
        codes = [code for _, _, code in ready]
        found = self._find_block(features, codes, self._demands(queries, codes))
        answers = iter(self._answers(queries, features, codes, found))
        for result in results:
            yield next(answers) if result is None else result

    def _find_block(
        self, features: Sequence[Features], codes: Sequence[Codes], demands: Sequence[Demand]
    ) -> FoundMany:
        if self._stage is not None:
            stage = self._stage
            pairs = zip(features, demands, strict=True)
            return FoundMany.of([self._find_by_stage(stage, *pair) for pair in pairs])
        if len(features) <= 1 or self._explain:
            each = zip(features, codes, demands, strict=True)
            return FoundMany.of([self._two_stage.find(*one) for one in each])
        return self._two_stage.find_many(np.stack(features), np.stack(codes), demands)

    def _prepared(self, query: Query) -> tuple[Features, Codes]:
        """The query's features as the archive would store them, and its code."""
        stored = self.snapshot.settings
        feature = rounded_feature(
            query.feature, query.name, stored.feature_dim, stored.feature_dtype
        )
        # One by one: the last bits of a matrix product hang on the rows beside.
        code = self.bundle.codes(feature[None])[0] if query.code is None else query.code
        return feature, code

    def _demands(self, queries: Sequence[Query], codes: Sequence[Codes]) -> list[Demand]:
        filters = self._filter.for_queries(queries)
        return [self._demand(*one) for one in zip(filters, codes, strict=True)]

    def _demand_of_features(self) -> Demand | None:
        """What features alone demand, None where that is not all, or they take another way."""
        settings = self.settings
        by_label = settings.labels is not None or settings.labelled_only
        anything = not by_label and settings.where is None
        if not anything or settings.max_per or settings.exclude_same not in {"none", "self"}:
            return None
        if self._stage is not None or self._explain:
            return None
        return Demand(self._k, self._reader.are_live, np.zeros(0, np.int64))

    def _demand(self, row_filter: QueryFilter, code: Codes) -> Demand:
        skip = row_filter.skip
        bits = _NO_BITS
        if skip is not None and len(skip):
            bits = hamming_to(self._reader, skip, code)
        if self.settings.max_per is None:
            return Demand(self._k, row_filter.admits, skip, bits)
        kind, per_group = self.settings.max_per
        numbering: dict[object, int] = {}

        def groups(rows: RowNumbers) -> RowNumbers:
            return self._reader.groups(rows, kind, numbering)

        # As a number of rows, which NumPy can hold.
        per_group = min(per_group, len(self.snapshot))
        return Demand(self._k, row_filter.admits, skip, bits, groups, per_group)

    def _find_by_stage(
        self, stage: L2Stage | AnnoyStage, feature: Features, demand: Demand
    ) -> Found:
        vector = hash_vectors(self.bundle, feature[None])[0]
        pool = stage.find(vector, self.settings.candidates, demand)
        distances = self._reader.distances(pool.rows, feature)
        groups = demand.groups
        order = nearest(
            distances,
            demand.k,
            lambda tied: self._reader.tie_keys(pool.rows[tied]),
            None if groups is None else lambda some: groups(pool.rows[some]),
            demand.per_group,
        )
        work = Work(PATHS.index(self.settings.coarse), read=len(pool.rows))
        rows = pool.rows[order]
        return Found(rows, distances[order], None, len(pool.rows), pool.widened, work)

    def _coarse_stage(self) -> L2Stage | AnnoyStage | None:
        if self.settings.coarse == "l2":
            return L2Stage(self.snapshot, self.bundle, self._reader)
        if self.settings.coarse == "annoy":
            return AnnoyStage(self.snapshot, self.bundle)
        return None  # the Hamming ball needs nothing in memory

    def _answers(
        self,
        queries: Sequence[Query],
        features: Sequence[Features],
        codes: Sequence[Codes],
        found: FoundMany,
    ) -> list[Answer]:
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
        return [self._answer(*one) for one in pairs]

    def _answer(
        self,
        query: Query,
        feature: Features,
        norm: float,
        found: Found,
        neighbours: tuple[Neighbour, ...],
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
            explain=self._explained(found) if self._explain else None,
        )

    def _explained(self, found: Found) -> dict[str, Any]:
        stages = self._two_stage
        return {
            "kernels": kernels.chosen(),
            "segments": stages.n_segments,
            "shards_without_index": stages.n_bare_shards,
            **found.work.as_json(),
        }

    def _classify(
        self, feature: npt.NDArray[Any], prediction: str | None
    ) -> ClassifierOpinion | None:
        probabilities = self.bundle.probabilities(feature[None])
        if probabilities is None:
            return None
        best = int(np.argmax(probabilities[0]))
        name = self.bundle.description.class_names[best]
        agrees = None if prediction is None else name == prediction
        return ClassifierOpinion(name, float(probabilities[0, best]), agrees)

    def _abstains(self, vote: Tally) -> bool:
        if vote.n_votes < self.settings.votes_needed:
            return True
        threshold = self.settings.abstain_below
        return threshold is not None and (vote.confidence is None or vote.confidence < threshold)

    def _check(self, bits: int) -> None:
        settings = self.settings
        for option, radius in (
            ("--radius", settings.radius),
            ("--max-radius", settings.max_radius),
        ):
            if radius is not None and radius > bits:
                message = f"{option} {radius} is more than the archive's codes have bits ({bits})."
                raise UsageError(message)
        classifier, names = self.bundle.classifier, self.bundle.description.class_names
        if classifier is not None and len(classifier.weight) != len(names):
            message = (
                f"The encoder in {self.bundle.directory} names {len(names)} classes, but its "
                f"classifier knows {len(classifier.weight)}."
            )
            raise ConflictError(message)
