"""An archive's calibration: of its own rows, each without its patient, or of other data.

How far a query may lie is said by the archive's own rows in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

from patchknn.archive.calibration import Calibration, rows_fingerprint
from patchknn.archive.counting import totals_of
from patchknn.archive.manifests import now
from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError
from patchknn.evaluation.calibration.calibrate import fit_and_judge, voting_of
from patchknn.evaluation.calibration.conformal import (
    conformal_threshold,
    coverage_over_splits,
    nonconformity,
)
from patchknn.evaluation.calibration.strangers import limits_of, own_distances
from patchknn.evaluation.evaluate import outcome_of
from patchknn.evaluation.outcomes import OutcomeCollector, Outcomes
from patchknn.jobs.cpus import available_cpus
from patchknn.search.answers import Answer, Failure
from patchknn.search.calibrated import calibration_settings
from patchknn.search.class_scores import class_probabilities
from patchknn.search.engine import BLOCK, Searcher
from patchknn.search.query import Query, rounded_feature, row_queries
from patchknn.search.settings import SearchSettings
from patchknn.search.strangeness import neighbour_distances, out_of_distribution

_ROWS = 1024


def own_queries(snapshot: Snapshot, most: int, *, by_slide: bool, seed: int = 0) -> Iterator[Query]:
    """The archive's labelled rows as queries, or ``most`` of them by chance, in their order.

    With ``by_slide`` a slide stands for a patient.
    """
    labelled = []
    for shard in snapshot.shards:
        live = shard.live_rows()
        labelled.append(live[shard.labels_at(live) >= 0])
    total = sum(map(len, labelled))
    chosen = np.ones(total, bool)
    if total > most:
        chosen[:] = False
        chosen[np.random.default_rng(seed).choice(total, most, replace=False)] = True
    first = 0
    for shard, every in zip(snapshot.shards, labelled, strict=True):
        rows = every[chosen[first : first + len(every)]]
        first += len(every)
        for start in range(0, len(rows), _ROWS):
            for query in row_queries(snapshot, shard, rows[start : start + _ROWS]):
                yield query._replace(patient=query.source) if by_slide else query


def answered(
    snapshot: Snapshot,
    queries: Iterable[Query | Failure],
    settings: SearchSettings,
    on_failure: Callable[[Failure], None],
) -> Outcomes:
    """What came of labelled queries; ``on_failure`` is told of those that have no answer.

    Raises InputError where none has, or none is of a class that the snapshot has.
    """
    failed: Failure | None = None
    searcher = Searcher(snapshot, settings, available_cpus())
    collector = OutcomeCollector(settings.k, snapshot.classes)
    dim, dtype = snapshot.settings.feature_dim, snapshot.settings.feature_dtype
    stream = iter(queries)
    while block := list(islice(stream, BLOCK)):
        for query, answer in zip(block, searcher.search_many(block), strict=True):
            if isinstance(query, Query) and isinstance(answer, Answer):
                feature = rounded_feature(query.feature, query.name, dim, dtype)
                norm = float(np.linalg.norm(feature.astype(np.float64)))
                collector.add(outcome_of(query, answer, norm=norm))
            elif isinstance(answer, Failure):
                failed = failed or answer
                on_failure(answer)
    if not len(collector):
        why = "there is none" if failed is None else failed.error.rstrip(".")
        message = (
            f"{snapshot.path} cannot be calibrated without an answer to a labelled query: {why}."
        )
        raise InputError(message)
    outcomes = collector.outcomes()
    unknown = unknown_classes(snapshot, outcomes)
    if sum(unknown.values()) == len(outcomes):
        message = (
            f"{snapshot.path} has none of the queries' classes ({', '.join(unknown)}): give data "
            "that are labelled as the archive is."
        )
        raise InputError(message)
    return outcomes


def unknown_classes(snapshot: Snapshot, outcomes: Outcomes) -> dict[str, int]:
    """How many queries are of each class that no row of the snapshot has."""
    numbers, counts = np.unique(outcomes.label, return_counts=True)
    pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
    return {outcomes.classes[n]: count for n, count in pairs if n >= len(snapshot.classes)}


def calibration_from(
    snapshot: Snapshot,
    outcomes: Outcomes,
    settings: SearchSettings,
    *,
    coverage: float,
    at_home: Outcomes | None = None,
    seed: int = 0,
) -> Calibration:
    """What these answers say of all that the snapshot will give with the same settings.

    ``coverage`` is the share of prediction sets that are to hold the true class. ``at_home`` are
    the answers to the archive's own rows, which say how far a query may lie; None where
    ``outcomes`` are those. Raises InputError where the queries are of one patient, or no row has a
    label.
    """
    priors = class_shares(snapshot)
    known = len(priors)
    voting, correct = voting_of(outcomes), outcomes.correct
    shares = np.array(list(priors.values()))
    fitted = fit_and_judge(voting, correct, shares, outcomes.groups, seed=seed)
    probabilities = class_probabilities(voting, shares)
    labels = np.where(outcomes.label < known, outcomes.label, -1)
    judged = coverage_over_splits(probabilities, labels, outcomes.groups, coverage, seed=seed)
    home = outcomes if at_home is None else at_home
    distances = neighbour_distances(voting_of(home))
    limits = limits_of(distances)
    found = Calibration(
        time=now(),
        own=at_home is None,
        settings=calibration_settings(settings, snapshot.settings.bits),
        rows=len(snapshot),
        fingerprint=rows_fingerprint(snapshot.manifest),
        queries=len(outcomes),
        patients=len(np.unique(outcomes.groups)),
        method=fitted.mapping.method,
        temperature=fitted.mapping.temperature,
        knots=fitted.mapping.knots,
        priors=priors,
        coverage=coverage,
        threshold=conformal_threshold(
            nonconformity(probabilities, labels), coverage, outcomes.groups
        ),
        nearest_limit=limits.nearest,
        short=limits.short,
        own_distances=own_distances(distances, home.radius),
        held_out={
            **fitted.held_out,
            "sets": judged._asdict(),
            "accuracy_at": fitted.accuracy_at,
        },
    )
    strange = out_of_distribution(found, neighbour_distances(voting))
    found.held_out["out_of_distribution"] = float(strange.mean())
    return found


def class_shares(snapshot: Snapshot) -> dict[str, float]:
    """How frequent each class is among the labelled rows, in the order of the classes.

    Raises InputError where no row has a label.
    """
    counts = totals_of(snapshot).classes
    total = sum(counts.values())
    if not total:
        message = f"{snapshot.path} has no labelled rows, so that nothing votes: label them first."
        raise InputError(message)
    return {name: counts.get(name, 0) / total for name in snapshot.classes}
