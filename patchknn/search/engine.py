"""The two-stage search: coarse rows, ranked by the L2 of their features, then put to the vote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.bundle import Bundle
from patchknn.hamming import kernels
from patchknn.search.answering import Answering, Features
from patchknn.search.answers import Answer, Failure
from patchknn.search.coarse_annoy import AnnoyStage
from patchknn.search.coarse_l2 import L2Stage, hash_vectors
from patchknn.search.demands import Demands
from patchknn.search.found import Found, FoundMany
from patchknn.search.parts import Codes
from patchknn.search.pool import Demand
from patchknn.search.query import Query, all_finite, rounded_feature
from patchknn.search.ranking import nearest
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings
from patchknn.search.two_stage import TwoStage
from patchknn.search.work import PATHS, Work

# Large enough that queries share what they read, small enough that answers stream.
BLOCK = 256


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
        self._demands = Demands(snapshot, settings, self._reader)
        self._answering = Answering(snapshot, settings, self._reader)
        widest = settings.widest_radius(snapshot.settings.bits)
        self._two_stage = TwoStage(snapshot, self._reader, settings.radius, widest, threads)
        self._stage = self._coarse_stage()
        # None where features are not all that there is to it, or take another way.
        self._plain_demand = None
        if self._stage is None and not explain:
            self._plain_demand = self._demands.of_features()
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
        feature, code = self._answering.prepared(query)
        self._demands.check(query)
        (demand,) = self._demands.of([query], [code])
        if self._stage is None:
            found = self._two_stage.find(feature, code, demand)
        else:
            found = self._find_by_stage(self._stage, feature, demand)
        explain = self._explained if self._explain else None
        (answer,) = self._answering.of([query], [feature], [code], FoundMany.of([found]), explain)
        return answer

    def search_many(self, queries: Iterable[Query | Failure]) -> Iterator[Answer | Failure]:
        """Answer queries in their order; what cannot be answered passes as a Failure.

        They are taken in blocks of 256, whose answers are as ``search`` gives them.
        """
        explain = self._explained if self._explain else None
        stream = iter(queries)
        while block := list(islice(stream, BLOCK)):
            ready = self._answering.ready(block, self._demands.check)
            demands = self._demands.of(ready.queries, ready.codes)
            found = self._find_block(ready.features, ready.codes, demands)
            yield from self._answering.answers(ready, found, explain)

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
        pairs = [self._answering.prepared(query) for query in queries]
        own_codes = [code for _, code in pairs]
        demands = self._demands.of(queries, own_codes)
        return self._find_block([feature for feature, _ in pairs], own_codes, demands)

    def _are_stored_features(self, features: Features) -> bool:
        """Whether features (Q, D) are as the archive would store them."""
        alike = features.dtype == self._dtype and features.shape[1:] == self._shape
        return alike and len(features) > 0 and all_finite(features)

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

    def _explained(self, found: Found) -> dict[str, Any]:
        stages = self._two_stage
        return {
            "kernels": kernels.chosen(),
            "segments": stages.n_segments,
            "shards_without_index": stages.n_bare_shards,
            **found.work.as_json(),
        }
