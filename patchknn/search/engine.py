"""The two-stage search: coarse rows, ranked by the L2 of their features, then put to the vote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.errors import ConflictError, PatchknnError, UsageError
from patchknn.hamming import kernels
from patchknn.hamming.distances import hamming_distances
from patchknn.search.answers import Answer, ClassifierOpinion, Failure, Neighbour
from patchknn.search.ball import find_ball
from patchknn.search.coarse_annoy import AnnoyStage
from patchknn.search.coarse_l2 import L2Stage, hash_vectors
from patchknn.search.filters import RowFilter
from patchknn.search.pool import Demand, Pool
from patchknn.search.query import Query, rounded_feature
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowNumbers, RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.votes import Tally, tally


class Searcher:
    """Answers queries from one snapshot of an archive with one set of settings.

    Paper A, sections 2.4 and 2.5. Raises UsageError for a label that no row can have, a radius
    beyond the bits or kernels that are not there, ConflictError where the archive's encoder does
    not fit it, PatchknnError where Annoy is asked for and does not work.
    """

    def __init__(self, snapshot: Snapshot, settings: SearchSettings) -> None:
        kernels.chosen()  # kernels that are forced and not there are no fault of a query
        self.snapshot = snapshot
        self.settings = settings
        self.bundle: Bundle = snapshot.bundle()
        self._reader = RowReader(snapshot)
        self._filter = RowFilter(snapshot, settings, self._reader)
        bits = snapshot.settings.bits
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
        self._stage = self._coarse_stage()

    def search(self, query: Query) -> Answer:
        """Answer one query.

        Raises InputError naming the query where its features do not fit, or where
        ``exclude_same`` is ``patient`` and the query's patient is unknown.
        """
        stored = self.snapshot.settings
        feature = rounded_feature(query, stored.feature_dim, stored.feature_dtype)
        code = self.bundle.codes(feature[None])[0] if query.code is None else query.code
        demand = self._demand(query)
        pool = self._coarse(feature, code, demand)
        distances = self._reader.distances(pool.rows, feature)
        groups = demand.groups
        chosen = nearest(
            distances,
            demand.k,
            lambda tied: self._reader.tie_keys(pool.rows[tied]),
            None if groups is None else lambda some: groups(pool.rows[some]),
            demand.per_group,
        )
        neighbours = tuple(
            self._neighbour(int(pool.rows[position]), code, float(distances[position]))
            for position in chosen
        )
        vote = tally([n.label for n in neighbours], [n.l2 for n in neighbours])
        return Answer(
            query=query.name,
            label=query.label,
            prediction=vote.prediction,
            confidence=vote.confidence,
            weighted_confidence=vote.weighted_confidence,
            votes=vote.votes,
            radius=pool.radius,
            ball=len(pool.rows),
            widened=pool.widened,
            abstained=self._abstains(vote),
            classifier=self._classify(feature, vote.prediction),
            neighbours=neighbours,
        )

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answer queries one by one as they come; what cannot be answered passes as a Failure."""
        for query in queries:
            if isinstance(query, Failure):
                yield query
                continue
            try:
                yield self.search(query)
            except PatchknnError as error:
                yield Failure(query.name, str(error))

    def _demand(self, query: Query) -> Demand:
        keep = self._filter.for_query(query)
        if self.settings.max_per is None:
            return Demand(self.settings.k, keep)
        kind, per_group = self.settings.max_per
        numbering: dict[object, int] = {}

        def groups(rows: RowNumbers) -> RowNumbers:
            return self._reader.groups(rows, kind, numbering)

        # As a number of rows, which NumPy can hold.
        return Demand(self.settings.k, keep, groups, min(per_group, len(self.snapshot)))

    def _coarse(
        self, feature: npt.NDArray[Any], code: npt.NDArray[np.uint8], demand: Demand
    ) -> Pool:
        settings = self.settings
        if self._stage is None:
            widest = settings.widest_radius(self.snapshot.settings.bits)
            return find_ball(self.snapshot, code, settings.radius, widest, demand)
        vector = hash_vectors(self.bundle, feature[None])[0]
        return self._stage.find(vector, settings.candidates, demand)

    def _coarse_stage(self) -> L2Stage | AnnoyStage | None:
        if self.settings.coarse == "l2":
            return L2Stage(self.snapshot, self.bundle, self._reader)
        if self.settings.coarse == "annoy":
            return AnnoyStage(self.snapshot, self.bundle)
        return None  # the Hamming ball needs nothing in memory

    def _neighbour(self, row: int, code: npt.NDArray[np.uint8], distance: float) -> Neighbour:
        stored = self.snapshot.row(row)
        shard, local = self.snapshot.shard_of(row)
        return Neighbour(
            row=row,
            id=stored.id,
            label=stored.label,
            hamming=int(hamming_distances(shard.codes[local : local + 1], code)[0]),
            l2=distance,
            source=stored.source,
            x=stored.x,
            y=stored.y,
            patient=stored.patient,
        )

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
