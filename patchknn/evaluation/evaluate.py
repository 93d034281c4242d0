"""A labelled set put to an archive: every query answered, then the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError
from patchknn.evaluation.outcomes import Outcome, Report
from patchknn.evaluation.ways import Answers, Ways, in_this_process
from patchknn.search.answers import Answer, Failure
from patchknn.search.query import Query, rounded_feature
from patchknn.search.settings import SearchSettings

METHOD = "patchknn"


def evaluate(
    snapshot: Snapshot,
    queries: Iterable[Query | Failure],
    settings: SearchSettings,
    on_failure: Callable[[Failure], None] | None = None,
    left_out: int = 0,
    *,
    ways: Ways | None = None,
) -> Report:
    """Answer queries whose ``label`` is their true class, and compare (paper A, section 3).

    A query of a class that the archive lacks counts as wrong; one without a label is left out;
    one that cannot be answered is given to ``on_failure`` and left out. ``left_out`` counts what
    had no label before. ``ways`` are those of ``snapshot`` and ``settings``, None in this process
    alone. Raises InputError where no query remains.
    """
    if ways is None:
        ways = in_this_process(snapshot, settings)
    outcomes: list[Outcome] = []
    failed = 0
    stream = iter(queries)
    while block := list(islice(stream, ways.block)):
        asked = [query for query in block if isinstance(query, Failure) or query.label is not None]
        left_out += len(block) - len(asked)
        answered: list[tuple[Query, Answer]] = []
        for query, answer in zip(asked, ways.searcher.search_many(asked), strict=True):
            if isinstance(query, Query) and isinstance(answer, Answer):
                answered.append((query, answer))
            elif isinstance(answer, Failure):
                failed += 1
                if on_failure is not None:
                    on_failure(answer)
        outcomes += _outcomes(snapshot, answered, ways)
    if not outcomes:
        reason = f"{failed} could not be answered, {left_out} had no label"
        message = f"No query is left to evaluate: {reason}; give labelled images or tiles."
        raise InputError(message)
    return Report(
        method=METHOD,
        k=settings.k,
        outcomes=tuple(outcomes),
        known_classes=snapshot.classes,
        left_out=left_out,
        failed=failed,
        settings=report_settings(snapshot, settings),
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
    snapshot: Snapshot,
    answered: list[tuple[Query, Answer]],
    ways: Ways,
) -> Iterator[Outcome]:
    if not answered:
        return
    stored = snapshot.settings
    dim, dtype = stored.feature_dim, stored.feature_dtype
    targets = [rounded_feature(query.feature, query.name, dim, dtype) for query, _ in answered]
    yardstick = ways.exhaustive.search([query for query, _ in answered], np.stack(targets))
    empty = _empty_balls(answered, ways.narrow)
    for (query, answer), best, is_empty in zip(answered, yardstick, empty, strict=True):
        label = query.label or ""
        nearest = [snapshot.row(row).label for row in best.rows.tolist()]
        yield Outcome(
            query=query.name,
            label=label,
            prediction=answer.prediction,
            confidence=answer.confidence,
            weighted_confidence=answer.weighted_confidence,
            neighbours=tuple(neighbour.label for neighbour in answer.neighbours),
            ball=answer.ball,
            empty=is_empty,
            widened=answer.widened,
            classifier=None if answer.classifier is None else answer.classifier.prediction,
            probability=None if answer.classifier is None else answer.classifier.probability,
            l2_true=sum(name == label for name in nearest),
        )


def _empty_balls(answered: list[tuple[Query, Answer]], narrow: Answers) -> list[bool | None]:
    """Whether the ball of the radius asked for, before any widening, held no row."""
    again = narrow.search_many(query for query, answer in answered if answer.widened)
    return [
        None if answer.radius is None else _ball_of(next(again) if answer.widened else answer) == 0
        for _, answer in answered
    ]


def _ball_of(answer: Answer | Failure) -> int:
    return answer.ball if isinstance(answer, Answer) else 0
