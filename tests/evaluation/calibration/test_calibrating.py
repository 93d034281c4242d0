from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patchknn.archive.calibration import calibration_of, store_calibration
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.errors import InputError
from patchknn.evaluation.calibration.calibrated_figures import calibrated_figures
from patchknn.evaluation.calibration.calibrating import (
    answered,
    calibration_from,
    class_shares,
    own_queries,
    unknown_classes,
)
from patchknn.evaluation.evaluate import evaluate
from patchknn.evaluation.queries import archived_queries, names_patients
from patchknn.search.answers import Answer, Failure
from patchknn.search.calibrated import Calibrated
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]
SETTINGS = SearchSettings(k=5, radius=16, exclude_same="patient")


@pytest.fixture
def archive(feature_archive: Make) -> Snapshot:
    """240 rows of three patients, of three clusters that overlap; 24 have no label."""
    rng = np.random.default_rng(5)
    true = rng.integers(0, 3, 240)
    features = np.concatenate([np.eye(3)[true] * 3, np.zeros((240, 5))], axis=1)
    labels = np.where(np.arange(240) % 10 == 0, -1, true)
    return feature_archive([features + rng.normal(size=(240, 8)) + 1], labels=[labels])


def test_own_rows_are_answered_as_evaluate_has_them_answered(archive: Snapshot) -> None:
    asked = own_queries(archive, 1000, by_slide=False)
    outcomes = answered(archive, asked, SETTINGS, pytest.fail)
    expected = evaluate(archive, archived_queries(archive), SETTINGS).outcomes
    assert len(outcomes) == 216
    for name in ("label", "prediction", "confidence", "neighbours", "distances", "norm", "row"):
        np.testing.assert_array_equal(getattr(outcomes, name), getattr(expected, name), name)


def test_a_sample_is_drawn_of_the_labelled_rows(archive: Snapshot) -> None:
    every = [query.row for query in own_queries(archive, 1000, by_slide=False)]
    some = [query.row for query in own_queries(archive, 50, by_slide=False, seed=1)]
    other = [query.row for query in own_queries(archive, 50, by_slide=False, seed=2)]
    assert len(some) == len(set(some)) == 50
    assert some == sorted(some)
    assert set(some) < set(every)
    assert some != other


def test_by_slide_a_slide_stands_for_a_patient(archive: Snapshot) -> None:
    assert names_patients(archive)
    for query in own_queries(archive, 20, by_slide=True):
        assert query.patient == query.source


def test_shares_of_the_classes_are_counted(archive: Snapshot) -> None:
    labels = [query.label for query in archived_queries(archive)]
    shares = class_shares(archive)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == {name: pytest.approx(labels.count(name) / 216) for name in archive.classes}


def test_what_is_stored_judges_the_same_rows_as_it_was_made_of(archive: Snapshot) -> None:
    """Over the whole archive: coverage and out-of-distribution as promised on its own rows."""
    outcomes = answered(archive, own_queries(archive, 1000, by_slide=False), SETTINGS, pytest.fail)
    made = calibration_from(archive, outcomes, SETTINGS, coverage=0.9)
    store_calibration(archive.path, made)
    snapshot = open_archive(archive.path)
    assert calibration_of(snapshot.manifest, snapshot.path) == made
    judging = Calibrated(snapshot, SETTINGS, coverage=0.9)
    queries = list(archived_queries(snapshot))
    found = judging.beside(queries, list(Searcher(snapshot, SETTINGS).search_many(queries)))
    answers = [answer for answer in found if isinstance(answer, Answer)]
    held = [answer.label in answer.judgement.prediction_set for answer in answers]
    assert 0.9 <= np.mean(held) < 0.9 + 2 / 216
    assert np.mean([answer.judgement.out_of_distribution for answer in answers]) <= 0.01
    confidences = np.array([answer.judgement.confidence for answer in answers])
    right = np.array([answer.prediction == answer.label for answer in answers])
    assert confidences.mean() == pytest.approx(right.mean(), abs=0.05)
    assert (made.queries, made.patients, made.rows) == (216, 3, 240)
    strange = [answer.judgement.out_of_distribution for answer in answers]
    sizes = [len(answer.judgement.prediction_set) for answer in answers]
    figures = calibrated_figures(made, outcomes, archive.classes)
    assert figures["set_coverage"] == pytest.approx(np.mean(held))
    assert figures["mean_set_size"] == pytest.approx(np.mean(sizes))
    assert figures["out_of_distribution"] == pytest.approx(np.mean(strange))
    assert figures["calibrated_brier"] == pytest.approx(np.mean((confidences - right) ** 2))
    assert figures["calibrated_auroc"] == pytest.approx(roc_auc_score(right, confidences))


def test_held_out_coverage_is_that_of_the_splits(archive: Snapshot) -> None:
    outcomes = answered(archive, own_queries(archive, 1000, by_slide=False), SETTINGS, pytest.fail)
    made = calibration_from(archive, outcomes, SETTINGS, coverage=0.8, seed=4)
    assert set(made.held_out) == {
        "confidence",
        "weighted_confidence",
        "temperature",
        "isotonic",
        "sets",
        "accuracy_at",
        "out_of_distribution",
    }
    assert made.held_out["sets"]["set_size"] >= 0.8
    again = calibration_from(archive, outcomes, SETTINGS, coverage=0.8, seed=4)
    assert again._replace(time=made.time) == made


def test_queries_of_classes_that_the_archive_lacks_count_as_wrong(archive: Snapshot) -> None:
    queries = [
        query._replace(label="NEW" if number % 4 == 0 else query.label)
        for number, query in enumerate(own_queries(archive, 100, by_slide=False))
    ]
    outcomes = answered(archive, queries, SETTINGS, pytest.fail)
    made = calibration_from(archive, outcomes, SETTINGS, coverage=0.9)
    assert "NEW" not in made.priors
    assert made.threshold is None
    assert made.held_out["sets"]["coverage"] == pytest.approx(0.75, abs=0.1)
    assert calibrated_figures(made, outcomes, archive.classes)["set_coverage"] == 0.75


def test_how_far_is_too_far_is_said_by_the_archives_own_rows(archive: Snapshot) -> None:
    own = answered(archive, own_queries(archive, 1000, by_slide=False), SETTINGS, pytest.fail)
    far = [
        query._replace(feature=query.feature + np.where(np.arange(8) == 7, 40, 0), patient=None)
        for query in own_queries(archive, 100, by_slide=False)
    ]
    others = answered(archive, far, SETTINGS._replace(exclude_same="none"), pytest.fail)
    alone = calibration_from(archive, own, SETTINGS, coverage=0.9)
    beside = calibration_from(archive, others, SETTINGS, coverage=0.9, at_home=own)
    assert (alone.own, beside.own) == (True, False)
    assert beside.nearest_limit == alone.nearest_limit
    assert (beside.short, beside.own_distances) == (alone.short, alone.own_distances)
    nearest = np.sort(own.distances[:, 0] / own.norm)
    assert beside.nearest_limit == pytest.approx(nearest[int(np.ceil(0.99 * 215))])
    assert alone.held_out["out_of_distribution"] <= 0.01
    assert beside.held_out["out_of_distribution"] == 1.0


def test_classes_that_the_archive_lacks_are_counted_and_alone_refused(archive: Snapshot) -> None:
    own = list(own_queries(archive, 10, by_slide=False))
    strangers = [query._replace(label="NEW") for query in own]
    outcomes = answered(archive, [*own, *strangers], SETTINGS, pytest.fail)
    assert unknown_classes(archive, outcomes) == {"NEW": 10}
    with pytest.raises(InputError, match=r"has none of the queries' classes \(NEW\)"):
        answered(archive, strangers, SETTINGS, pytest.fail)


def test_what_has_no_answer_is_told(archive: Snapshot) -> None:
    told: list[str] = []
    nobody = Query("nobody", np.zeros(8, np.float32), label="A")
    queries = [Failure("x", "x is gone."), nobody, *own_queries(archive, 9, by_slide=False)]
    outcomes = answered(archive, queries, SETTINGS, lambda failure: told.append(failure.query))
    assert told == ["x", "nobody"]
    assert len(outcomes) == 9
    with pytest.raises(
        InputError, match="without an answer to a labelled query: nobody has no known"
    ):
        answered(archive, [nobody], SETTINGS, lambda failure: None)
