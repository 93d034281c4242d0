from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import InputError
from patchknn.evaluation.evaluate import evaluate
from patchknn.evaluation.ways import spread
from patchknn.search.answers import Failure
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings
from patchknn.search.spread import Spreading

Make = Callable[..., Snapshot]


def clustered(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 3, n)
    centres = np.eye(3)[labels] * 6
    return np.concatenate([centres, np.zeros((n, 5))], axis=1) + rng.normal(size=(n, 8)), labels


@pytest.fixture
def archive(feature_archive: Make) -> Snapshot:
    rng = np.random.default_rng(5)
    parts = [clustered(rng, n) for n in (60, 40)]
    return feature_archive([p[0] for p in parts], labels=[p[1] for p in parts])


def queries(n: int = 30, patient: str | None = "P1") -> list[Query]:
    features, labels = clustered(np.random.default_rng(9), n)
    return [
        Query(f"q{i}", features[i].astype(np.float32), patient=patient, label="ABC"[labels[i]])
        for i in range(n)
    ]


def test_figures_agree_with_brute_force(archive: Snapshot) -> None:
    """With every row in the ball the two stages are plain kNN, which a loop can do."""
    asked = queries()
    report = evaluate(archive, asked, SearchSettings(k=5, radius=16, exclude_same="patient"))
    features = np.concatenate([np.asarray(s.features, np.float64) for s in archive.shards])
    rows = [archive.row(row) for row in range(archive.n_rows)]
    right = hits = 0
    for query in asked:
        target = query.feature.astype(np.float16).astype(np.float64)
        distances = np.linalg.norm(features - target, axis=1)
        allowed = [i for i in np.argsort(distances) if rows[i].patient != "P1"][:5]
        labels = [rows[i].label for i in allowed]
        (prediction, votes), *others = Counter(labels).most_common()
        assert not others or votes > others[0][1]  # no tied vote in this data
        right += prediction == query.label
        hits += labels.count(query.label)
    figures = report.figures()
    assert figures["accuracy"] == pytest.approx(right / len(asked))
    assert figures["precision_at_k"] == pytest.approx(hits / (5 * len(asked)))
    assert figures["l2_precision_at_k"] == figures["precision_at_k"]
    assert figures["mean_ball"] == sum(row.patient != "P1" for row in rows)
    assert figures["widened"] == 0


def test_classifier_is_judged_beside_the_vote(archive: Snapshot) -> None:
    asked = queries()
    report = evaluate(archive, asked, SearchSettings(k=5, exclude_same="none"))
    features = np.stack([query.feature for query in asked]).astype(np.float16)
    probabilities = archive.bundle().probabilities(features)
    assert probabilities is not None
    expected = [
        "ABC"[best] == q.label for best, q in zip(probabilities.argmax(1), asked, strict=True)
    ]
    assert report.figures()["classifier_accuracy"] == pytest.approx(np.mean(expected))


def test_empty_balls_are_counted_before_they_are_widened(archive: Snapshot) -> None:
    asked = queries()
    report = evaluate(archive, asked, SearchSettings(k=5, radius=0, exclude_same="none"))
    bundle = archive.bundle()
    stored = np.concatenate([np.asarray(shard.codes) for shard in archive.shards])
    sizes = []
    for query in asked:
        code = bundle.codes(query.feature[None].astype(np.float16))
        sizes.append(int((stored == code).all(axis=1).sum()))
    figures = report.figures()
    assert 0 < figures["empty_balls"] < 1
    assert figures["empty_balls"] == pytest.approx(np.mean([size == 0 for size in sizes]))
    assert figures["widened"] == pytest.approx(np.mean([size < 5 for size in sizes]))


def test_a_class_that_the_archive_lacks_counts_as_wrong(archive: Snapshot) -> None:
    known, strange = queries(2)
    stranger = Query("q-new", strange.feature, patient="P1", label="NEW")
    report = evaluate(archive, [known, stranger], SearchSettings(k=3))
    assert report.unknown_classes == {"NEW": 1}
    assert report.figures()["accuracy"] == 0.5


def test_what_cannot_be_answered_is_told_and_the_rest_is_done(archive: Snapshot) -> None:
    told: list[str] = []
    good, other = queries(2)

    def stream() -> Iterator[Query | Failure]:
        yield Failure("bad.png", "bad.png is not an image.")
        yield good
        yield Query("short", np.zeros(3), patient="P1", label="A")
        yield Query("nobody", other.feature, label="A")
        yield Query("unlabelled", other.feature, patient="P1")

    settings = SearchSettings(k=3, exclude_same="patient")
    report = evaluate(archive, stream(), settings, lambda failure: told.append(failure.query))
    assert told == ["bad.png", "short", "nobody"]
    assert (report.figures()["n"], report.failed, report.left_out) == (1, 3, 1)


def test_without_any_query_left_it_is_an_error(archive: Snapshot) -> None:
    with pytest.raises(InputError, match="No query is left to evaluate: 1 could not be answered"):
        evaluate(archive, [Failure("x", "x is gone.")], SearchSettings())


def test_fewer_than_k_rows_lower_the_precision(feature_archive: Make) -> None:
    snapshot = feature_archive([np.zeros((3, 4))], labels=[np.array([0, 0, 0])])
    query = Query("q", np.zeros(4), label="A")
    report = evaluate(snapshot, [query], SearchSettings(k=10, exclude_same="none"))
    figures = report.figures()
    assert figures["accuracy"] == 1.0
    assert figures["precision_at_k"] == pytest.approx(0.3)
    assert figures["all_k_true"] == 0


def test_rows_per_patient_are_capped_in_the_vote_and_in_the_yardstick(archive: Snapshot) -> None:
    wide = SearchSettings(k=5, radius=16, max_radius=16, exclude_same="none")
    report = evaluate(archive, queries(8), wide._replace(max_per=("patient", 1)))
    assert set((report.outcomes.rows >= 0).sum(axis=1).tolist()) == {3}  # of three patients
    figures = report.figures()
    assert figures["precision_at_k"] == figures["l2_precision_at_k"] <= 3 / 5


def test_l2_coarse_stage_has_no_balls(archive: Snapshot) -> None:
    settings = SearchSettings(k=5, coarse="l2", candidates=20, exclude_same="none")
    figures = evaluate(archive, queries(8), settings).figures()
    assert figures["empty_balls"] is None
    assert figures["mean_ball"] == 20


def test_rows_without_a_label_take_places_unless_they_are_left_out(feature_archive: Make) -> None:
    labels = np.array([0, 0, -1, -1])
    snapshot = feature_archive([np.zeros((4, 4))], labels=[labels])
    query = Query("q", np.zeros(4), label="A")
    every = evaluate(snapshot, [query], SearchSettings(k=4, exclude_same="none"))
    assert every.figures()["precision_at_k"] == 0.5
    assert every.settings["unlabelled_rows"] == 2
    known = SearchSettings(k=2, exclude_same="none", labelled_only=True)
    figures = evaluate(snapshot, [query], known).figures()
    assert figures["precision_at_k"] == figures["l2_precision_at_k"] == 1.0


@pytest.mark.parametrize("shares", [1, 2, 5])
@pytest.mark.parametrize("limits", [{}, {"max_per": ("patient", 2)}, {"radius": 0, "k": 9}])
def test_shares_of_the_archive_give_the_same_report(
    feature_archive: Make, shares: int, limits: dict[str, Any]
) -> None:
    rng = np.random.default_rng(5)
    parts = [clustered(rng, n) for n in (40, 10, 30, 25)]
    snapshot = feature_archive([p[0] for p in parts], labels=[p[1] for p in parts])
    asked = [*queries(40), Failure("gone", "gone is gone."), Query("bad", np.zeros(3), label="A")]
    settings = SearchSettings(**{"k": 5, "exclude_same": "patient", **limits})
    whole = evaluate(snapshot, asked, settings)
    if settings.radius == 0:
        assert whole.figures()["empty_balls"] > 0
    ways = spread(snapshot, settings, Spreading(map, shares, block=9, blocks=2))
    assert evaluate(snapshot, asked, settings, ways=ways) == whole
