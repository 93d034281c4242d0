"""Answers told again from the columns of an evaluation, for methods that keep no others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.evaluation import Evaluation
from patchknn.search.answers import Answer, Neighbour
from patchknn.search.neighbours import by_query, describe
from patchknn.search.query import Query
from patchknn.search.rows import RowReader
from patchknn.search.votes import tally

NO_BITS = -1


def answers_of(
    snapshot: Snapshot, evaluation: Evaluation, queries: Sequence[Query]
) -> list[Answer | None]:
    """What a method answered to queries, by their names; None where it was not asked.

    Its neighbours are rows of ``snapshot``, with its own distances; of hash codes it knows nothing
    (``NO_BITS``). All are None where it searched another archive, or kept no rows.
    """
    outcomes = evaluation.outcomes
    same = (str(snapshot.path), snapshot.number)
    if (evaluation.settings.get("archive"), evaluation.settings.get("snapshot")) != same:
        return [None] * len(queries)
    wanted = {query.name for query in queries}
    places: dict[str, int] = {}
    for place, name in enumerate(outcomes.queries):
        if name in wanted:
            places.setdefault(name, place)
    found = [places.get(query.name) for query in queries]
    rows = [
        np.zeros(0, np.int64) if place is None else outcomes.rows[place][outcomes.rows[place] >= 0]
        for place in found
    ]
    if not any(map(len, rows)):
        return [None] * len(queries)
    neighbours = _described(snapshot, evaluation, found, rows)
    return [
        None if place is None else _answer(evaluation, place, query, mine)
        for place, query, mine in zip(found, queries, neighbours, strict=True)
    ]


def _described(
    snapshot: Snapshot,
    evaluation: Evaluation,
    places: Sequence[int | None],
    rows: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]],
) -> list[tuple[Neighbour, ...]]:
    flat = np.concatenate(rows)
    distances = np.concatenate(
        [
            np.zeros(0) if place is None else evaluation.outcomes.distances[place][: len(mine)]
            for place, mine in zip(places, rows, strict=True)
        ]
    )
    codes = np.zeros((len(flat), snapshot.settings.bits // 8), np.uint8)
    told = describe(RowReader(snapshot), flat, distances, codes)
    return by_query([one._replace(hamming=NO_BITS) for one in told], [len(mine) for mine in rows])


def _answer(
    evaluation: Evaluation, place: int, query: Query, neighbours: tuple[Neighbour, ...]
) -> Answer:
    norm = float(evaluation.outcomes.norm[place])
    labels, distances = [n.label for n in neighbours], [n.l2 for n in neighbours]
    vote = tally(labels, distances, norm if np.isfinite(norm) else 0.0)
    weighted = float(evaluation.outcomes.weighted_confidence[place])
    return Answer(
        query=query.name,
        label=query.label,
        prediction=vote.prediction,
        confidence=vote.confidence,
        weighted_confidence=None if np.isnan(weighted) else weighted,
        votes=vote.votes,
        radius=None,
        ball=len(neighbours),
        widened=False,
        abstained=False,
        classifier=None,
        neighbours=neighbours,
    )
