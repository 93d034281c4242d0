from collections.abc import Callable

import numpy as np
import pytest

from patchknn.archive.calibration import (
    Calibration,
    ConfidenceMap,
    rows_fingerprint,
    store_calibration,
)
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.errors import ConflictError, InputError, UsageError
from patchknn.search.answers import Answer, Failure
from patchknn.search.calibrated import Calibrated, calibration_settings
from patchknn.search.calibration import calibrated_confidences
from patchknn.search.class_scores import Voting, class_probabilities
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]
SETTINGS = SearchSettings(k=5, radius=8, abstain_below=0.5)
PRIORS = {"A": 0.5, "B": 0.3, "C": 0.2}
KNOTS = ((0.0, 0.05), (0.4, 0.3), (1.0, 0.95))


def stored(snapshot: Snapshot, settings: SearchSettings = SETTINGS, **given: object) -> Snapshot:
    fields = {
        "time": "2026-01-02T03:04:05+00:00",
        "own": True,
        "settings": calibration_settings(settings, snapshot.settings.bits),
        "rows": len(snapshot),
        "fingerprint": rows_fingerprint(snapshot.manifest),
        "queries": 50,
        "patients": 4,
        "method": "isotonic",
        "temperature": None,
        "knots": KNOTS,
        "priors": PRIORS,
        "coverage": 0.9,
        "threshold": 0.8,
        "nearest_limit": 1.0,
        "short": 0.0,
        "own_distances": {},
        "held_out": {"isotonic": {}, "temperature": {}},
    }
    store_calibration(snapshot.path, Calibration(**(fields | given)))
    return open_archive(snapshot.path)


@pytest.fixture
def snapshot(make_snapshot: Make, rng: np.random.Generator) -> Snapshot:
    return make_snapshot(rng, sizes=(30, 20), classes=("A", "B", "C"))


@pytest.fixture
def queries(snapshot: Snapshot) -> list[Query | Failure]:
    rng = np.random.default_rng(3)
    dim = snapshot.settings.feature_dim
    near = [Query(f"q{i}", rng.normal(size=dim).astype(np.float32) * 2) for i in range(12)]
    return [*near[:6], Failure("gone", "gone is gone."), *near[6:]]


def answers_of(snapshot: Snapshot, queries: list[Query | Failure]) -> list[Answer | Failure]:
    return list(Searcher(snapshot, SETTINGS).search_many(queries))


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_answers_are_judged_as_their_columns_are(
    snapshot: Snapshot, queries: list[Query | Failure], method: str
) -> None:
    mapping = ConfidenceMap(method, 0.4, KNOTS)
    judging = Calibrated(stored(snapshot, method=method, temperature=0.4), SETTINGS)
    answers = answers_of(snapshot, queries)
    judged = judging.beside(queries, answers)
    assert judged[6] == queries[6]
    priors = np.array(list(PRIORS.values()))
    for query, before, after in zip(queries, answers, judged, strict=True):
        if isinstance(query, Failure):
            continue
        names = [list(PRIORS).index(n.label) if n.label else -1 for n in before.neighbours]
        voting = Voting(
            np.array([names]),
            np.array([[n.l2 for n in before.neighbours]]),
            np.linalg.norm(query.feature[None].astype(np.float16).astype(np.float64), axis=1),
            np.array([list(PRIORS).index(before.prediction)]),
        )
        told = after.judgement
        (expected,) = calibrated_confidences(mapping, voting, priors)
        assert told.confidence == pytest.approx(expected, rel=1e-12)
        likely = dict(zip(PRIORS, class_probabilities(voting, priors)[0], strict=True))
        held = [name for name in sorted(likely, key=lambda n: -likely[n]) if likely[name] >= 0.2]
        assert list(told.prediction_set) == held
        distance = before.neighbours[0].l2 / np.linalg.norm(query.feature)
        assert told.strangeness == pytest.approx(distance, rel=1e-2)
        assert told.out_of_distribution == (told.strangeness > 1)
        assert after.abstained == (told.confidence < 0.5 or sum(before.votes.values()) < 3)
        assert after._replace(judgement=None, abstained=before.abstained) == before


def test_too_few_votes_abstain_whatever_the_confidence(
    snapshot: Snapshot, queries: list[Query | Failure]
) -> None:
    settings = SETTINGS._replace(min_neighbours=5, abstain_below=None)
    judging = Calibrated(stored(snapshot), settings)
    answers = answers_of(snapshot, queries[:6])
    for answer in judging.beside(queries[:6], answers):
        assert answer.abstained == (sum(answer.votes.values()) < 5)


def test_an_answer_says_it_all_in_json(snapshot: Snapshot, queries: list[Query | Failure]) -> None:
    (answer,) = Calibrated(stored(snapshot), SETTINGS).beside(
        queries[:1], answers_of(snapshot, queries[:1])
    )
    keys = list(answer.as_json())
    added = keys[keys.index("classifier") + 1 : keys.index("neighbours")]
    assert added == [
        "calibrated_confidence",
        "calibration_stale",
        "coverage",
        "prediction_set",
        "out_of_distribution",
        "strangeness",
    ]


def test_far_from_all_is_said(snapshot: Snapshot) -> None:
    dim = snapshot.settings.feature_dim
    judging = Calibrated(stored(snapshot, nearest_limit=1e-6), SETTINGS)
    query = Query("far", np.full(dim, 100, np.float32))
    (answer,) = judging.beside([query], answers_of(snapshot, [query]))
    assert answer.judgement.out_of_distribution
    nobody = answer._replace(neighbours=(), votes={}, prediction=None)
    (answer,) = judging.beside([query], [nobody])
    told = answer.judgement
    assert (told.out_of_distribution, told.strangeness, told.confidence) == (True, None, None)
    assert told.as_json()["strangeness"] is None
    assert answer.abstained


def test_a_stale_one_answers_and_says_so(
    snapshot: Snapshot, queries: list[Query | Failure]
) -> None:
    judging = Calibrated(stored(snapshot, fingerprint="0" * 64, priors={"A": 1.0}), SETTINGS)
    assert judging.warning is not None
    assert judging.warning.startswith(f"the calibration of {snapshot.path} is stale: it was made")
    (answer,) = judging.beside(queries[:1], answers_of(snapshot, queries[:1]))
    assert answer.judgement.stale
    assert Calibrated(stored(snapshot), SETTINGS).warning is None


def test_without_one_the_remedy_has_the_settings(snapshot: Snapshot) -> None:
    with pytest.raises(InputError) as told:
        Calibrated(snapshot, SETTINGS._replace(labelled_only=True), coverage=0.8)
    assert str(told.value) == (
        f"{snapshot.path} is not calibrated: run 'patchknn archive calibrate {snapshot.path} --k 5 "
        "--radius 8 --max-radius 8 --labelled --coverage 0.8'."
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"k": 3}, "--k 5"),
        ({"radius": 2}, "--radius 8"),
        ({"coarse": "l2"}, "--coarse hamming"),
        ({"max_per": ("patient", 1)}, "--max-per none"),
    ],
)
def test_other_settings_are_refused(
    snapshot: Snapshot, changed: dict[str, object], told: str
) -> None:
    with pytest.raises(ConflictError, match=f"was calibrated with {told}"):
        Calibrated(stored(snapshot), SETTINGS._replace(**changed))


def test_what_is_left_out_need_not_match(snapshot: Snapshot) -> None:
    made = stored(snapshot, SETTINGS._replace(exclude_same="patient"))
    assert not Calibrated(made, SETTINGS).stale


def test_another_promise_and_filters_are_refused(snapshot: Snapshot) -> None:
    made = stored(snapshot)
    assert Calibrated(made, SETTINGS, coverage=0.9).calibration.coverage == 0.9
    with pytest.raises(ConflictError, match=r"for --coverage 0\.9, not 0\.99: run 'patchknn"):
        Calibrated(made, SETTINGS, coverage=0.99)
    with pytest.raises(UsageError, match="leave --label and --where away"):
        Calibrated(made, SETTINGS._replace(labels=frozenset({"A"})))
