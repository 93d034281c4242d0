"""Answers told again from columns, and the worklist of the least sure."""

import numpy as np

from patchknn.evaluation.evaluate import METHOD, Contestant, evaluate_all
from patchknn.evaluation.queries import archived_queries
from patchknn.evaluation.report.query_report import Worklist
from patchknn.evaluation.report.told import NO_BITS, answers_of
from patchknn.evaluation.ways import in_this_process
from patchknn.search.answers import Answer
from patchknn.search.settings import SearchSettings


def test_answers_told_again_are_the_answers(picture_archive) -> None:
    snapshot = picture_archive(90, thumbnails=False)
    settings = SearchSettings(k=5, max_radius=2, exclude_same="slide")
    kept = []
    contestant = Contestant(METHOD, settings, in_this_process(snapshot, settings))
    (evaluation,) = evaluate_all(
        snapshot,
        archived_queries(snapshot),
        [contestant],
        on_answered=lambda query, answers: kept.append((query, answers[0])),
    )
    queries = [query for query, _ in kept]
    chosen = [*queries[40:60], queries[0], queries[0]._replace(name="was not asked")]
    told = answers_of(snapshot, evaluation, chosen)
    assert told[-1] is None
    by_name = {query.name: answer for query, answer in kept}
    assert any(len(answer.neighbours) < 5 for answer in told[:-1])
    for query, answer in zip(chosen[:-1], told[:-1], strict=True):
        wanted = by_name[query.name]
        assert (answer.prediction, answer.confidence) == (wanted.prediction, wanted.confidence)
        assert (answer.votes, answer.label) == (wanted.votes, wanted.label)
        same = [one._replace(hamming=NO_BITS) for one in wanted.neighbours]
        assert list(answer.neighbours) == same


def test_an_evaluation_of_another_archive_has_none(picture_archive) -> None:
    one, other = picture_archive(30, thumbnails=False), picture_archive(30, thumbnails=False)
    settings = SearchSettings(k=3, max_radius=16)
    contestant = Contestant(METHOD, settings, in_this_process(one, settings))
    (evaluation,) = evaluate_all(one, archived_queries(one), [contestant])
    queries = list(archived_queries(one))[:4]
    assert None not in answers_of(one, evaluation, queries)
    assert answers_of(other, evaluation, queries) == [None] * 4


def answer(number: int, confidence: float | None, prediction: str | None = "A") -> Answer:
    return Answer(
        query=f"q{number}",
        label=None,
        prediction=prediction,
        confidence=confidence,
        weighted_confidence=None,
        votes={},
        radius=None,
        ball=0,
        widened=False,
        abstained=confidence is None or confidence < 0.5,
        classifier=None,
        neighbours=(),
    )


def test_the_worklist_keeps_the_least_sure_in_order() -> None:
    rng = np.random.default_rng(0)
    shares = [None if share == 0 else share / 10 for share in rng.integers(0, 11, 500).tolist()]
    worklist = Worklist(40)
    for number, share in enumerate(shares):
        worklist.add(answer(number, share, None if share is None else "AB"[number % 2]), row=number)
    wanted = sorted(range(500), key=lambda number: shares[number] or 0)[:40]
    assert [asked.row for asked in worklist.items()] == wanted
    assert worklist.seen == 500
    assert worklist.predictions[None] == shares.count(None)
    assert sum(worklist.predictions.values()) == 500
    unsure = sum(share is None or share < 0.5 for share in shares)
    assert sum(worklist.for_review.values()) == unsure
