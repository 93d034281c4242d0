"""A labelled set put to an archive: every query answered, then the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.outcomes import Outcome, OutcomeCollector
from patchknn.evaluation.ways import Ways, in_this_process
from patchknn.search.answers import Answer, Failure
from patchknn.search.query import Query, rounded_feature
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings

METHOD = "patchknn"
_NO_CLASS = -2  # of the archive, which no row has: those without a label have −1


class Contestant(NamedTuple):
    """A way to answer the queries, under the name that its figures get."""

    method: str
    settings: SearchSettings
    ways: Ways


def evaluate(
    snapshot: Snapshot,
    queries: Iterable[Query | Failure],
    settings: SearchSettings,
    on_failure: Callable[[Failure], None] | None = None,
    left_out: int = 0,
    *,
    ways: Ways | None = None,
) -> Evaluation:
    """``evaluate_all`` of one method; ``ways`` None searches in this process alone."""
    one = Contestant(METHOD, settings, ways or in_this_process(snapshot, settings))
    (evaluation,) = evaluate_all(snapshot, queries, [one], on_failure=on_failure, left_out=left_out)
    return evaluation


def evaluate_all(
    snapshot: Snapshot,
    queries: Iterable[Query | Failure],
    contestants: Sequence[Contestant],
    *,
    on_failure: Callable[[Failure], None] | None = None,
    left_out: int = 0,
    on_answered: Callable[[Query, Sequence[Answer]], None] | None = None,
) -> list[Evaluation]:
    """Answer queries whose ``label`` is their true class, and compare (paper A, section 3).

    A query of a class that the archive lacks counts as wrong; one without a label is left out;
    one that any of the contestants cannot answer is given to ``on_failure`` and left out for all
    of them. ``left_out`` counts what had no label before. ``on_answered`` gets every query with
    the contestants' answers, in order. Queries are drawn in blocks, and of their outcomes columns
    are kept. Raises InputError where no query remains.
    """
    k_and_classes = [(one.settings.k, snapshot.classes) for one in contestants]
    collectors = [OutcomeCollector(k, classes) for k, classes in k_and_classes]
    failed = 0
    stream = iter(queries)
    while block := list(islice(stream, min(one.ways.block for one in contestants))):
        asked = [query for query in block if isinstance(query, Failure) or query.label is not None]
        left_out += len(block) - len(asked)
        columns = [list(one.ways.searcher.search_many(asked)) for one in contestants]
        answered: list[tuple[Query, tuple[Answer, ...]]] = []
        for query, *answers in zip(asked, *columns, strict=True):
            failures = [answer for answer in answers if isinstance(answer, Failure)]
            if failures:
                failed += 1
                if on_failure is not None:
                    on_failure(failures[0])
            elif isinstance(query, Query):
                answered.append((query, tuple(a for a in answers if isinstance(a, Answer))))
        for number, (one, collector) in enumerate(zip(contestants, collectors, strict=True)):
            pairs = [(query, answers[number]) for query, answers in answered]
            for outcome in _outcomes(snapshot, pairs, one):
                collector.add(outcome)
        if on_answered is not None:
            for query, answers in answered:
                on_answered(query, answers)
    if not len(collectors[0]):
        reason = f"{failed} could not be answered, {left_out} had no label"
        message = f"No query is left to evaluate: {reason}; give labelled images or tiles."
        raise InputError(message)
    return [
        Evaluation(
            method=one.method,
            outcomes=collector.outcomes(),
            known_classes=snapshot.classes,
            left_out=left_out,
            failed=failed,
            settings=report_settings(snapshot, one.settings),
        )
        for one, collector in zip(contestants, collectors, strict=True)
    ]


def outcome_of(
    query: Query,
    answer: Answer,
    *,
    norm: float,
    l2_true: int | None = None,
    empty: bool | None = None,
) -> Outcome:
    """What came of a query with a label, whose features are ``norm`` long."""
    classifier = answer.classifier
    return Outcome(
        query=query.name,
        label=query.label or "",
        prediction=answer.prediction,
        confidence=answer.confidence,
        neighbours=tuple(neighbour.label for neighbour in answer.neighbours),
        weighted_confidence=answer.weighted_confidence,
        radius=answer.radius,
        ball=answer.ball,
        empty=empty,
        widened=answer.widened,
        classifier=None if classifier is None else classifier.prediction,
        probability=None if classifier is None else classifier.probability,
        l2_true=l2_true,
        patient=query.patient,
        row=query.row,
        rows=tuple(neighbour.row for neighbour in answer.neighbours),
        distances=tuple(neighbour.l2 for neighbour in answer.neighbours),
        norm=norm,
    )


def report_settings(snapshot: Snapshot, settings: SearchSettings) -> dict[str, Any]:
    """What the figures hang on, ready for JSON."""
    given = settings._asdict()
    if settings.labels is not None:
        given["labels"] = sorted(settings.labels)
    return {
        **given,
        "max_radius": settings.widest_radius(snapshot.settings.bits),
        "archive": str(snapshot.path),
        "snapshot": snapshot.number,
        "rows": len(snapshot),
        "unlabelled_rows": sum(
            int((shard.labels[shard.live_rows()] < 0).sum()) for shard in snapshot.shards
        ),
    }


def _outcomes(
    snapshot: Snapshot, answered: list[tuple[Query, Answer]], one: Contestant
) -> list[Outcome]:
    if not answered:
        return []
    stored = snapshot.settings
    dim, dtype = stored.feature_dim, stored.feature_dtype
    targets = np.stack(
        [rounded_feature(query.feature, query.name, dim, dtype) for query, _ in answered]
    )
    norms = np.linalg.norm(targets.astype(np.float64), axis=1).tolist()
    hits: list[int | None] = [None] * len(answered)
    if one.ways.exhaustive is not None:
        best = one.ways.exhaustive.search([query for query, _ in answered], targets)
        classes = {name: number for number, name in enumerate(snapshot.classes)}
        true = np.array([classes.get(query.label or "", _NO_CLASS) for query, _ in answered])
        counts = [len(found.rows) for found in best]
        labels = RowReader(snapshot).labels(np.concatenate([found.rows for found in best]))
        owners = np.repeat(np.arange(len(answered)), counts)
        right = labels == true[owners]
        hits = np.bincount(owners[right], minlength=len(answered)).tolist()
    empty = _empty_balls(answered, one)
    return [
        outcome_of(query, answer, norm=norm, l2_true=l2_true, empty=is_empty)
        for (query, answer), norm, l2_true, is_empty in zip(
            answered, norms, hits, empty, strict=True
        )
    ]


def _empty_balls(answered: list[tuple[Query, Answer]], one: Contestant) -> list[bool | None]:
    """Whether the ball of the radius asked for, before any widening, held no row."""
    empty: list[bool | None] = []
    unknown = []
    for number, (_, answer) in enumerate(answered):
        empty.append(None if answer.radius is None else answer.ball == 0)
        if answer.radius is not None and answer.widened:
            nearest = min((n.hamming for n in answer.neighbours), default=one.settings.radius + 1)
            empty[number] = nearest > one.settings.radius
            # All rows of the wider ball were seen, or one of the narrow ball: else who knows.
            if empty[number] and len(answer.neighbours) < answer.ball:
                unknown.append(number)
    again = one.ways.narrow.search_many(answered[number][0] for number in unknown)
    for number, narrow in zip(unknown, again, strict=True):
        empty[number] = not isinstance(narrow, Answer) or narrow.ball == 0
    return empty
