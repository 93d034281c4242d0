"""k-occurrences against a loop, their skewness against scipy."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from patchknn.archive.choice import Choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.evaluation.diagnosis.hubness import Hubness, hubness, hubness_as_dict
from patchknn.evaluation.evaluate import evaluate
from patchknn.evaluation.outcomes import Outcomes
from patchknn.evaluation.queries import archived_queries
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]


def judged(snapshot: Snapshot, k: int = 5) -> Outcomes:
    settings = SearchSettings(k=k, radius=16, exclude_same="self")
    return evaluate(snapshot, archived_queries(snapshot), settings).outcomes


@pytest.fixture
def snapshot(feature_archive: Make) -> Snapshot:
    rng = np.random.default_rng(4)
    parts = [rng.normal(size=(n, 12)) for n in (50, 30)]
    return feature_archive(parts, labels=[rng.integers(-1, 3, len(part)) for part in parts])


def test_occurrences_are_those_of_a_loop(snapshot: Snapshot) -> None:
    outcomes = judged(snapshot)
    found = hubness(snapshot, outcomes)
    counts, bad = Counter(), Counter()
    for number in range(len(outcomes)):
        for row, label in zip(outcomes.rows[number], outcomes.neighbours[number], strict=True):
            counts[int(row)] += 1
            bad[int(row)] += int(label) != int(outcomes.label[number])
    assert found.rows.tolist() == list(range(80))
    assert found.occurrences.tolist() == [counts[row] for row in range(80)]
    assert found.bad.tolist() == [bad[row] for row in range(80)]
    assert found.occurrences.sum() == 5 * len(outcomes)
    assert found.skewness == pytest.approx(scipy.stats.skew(found.occurrences))
    assert found.antihubs == pytest.approx(sum(counts[row] == 0 for row in range(80)) / 80)
    limit = found.occurrences.mean() + 2 * found.occurrences.std()
    assert found.hubs.tolist() == [counts[row] > limit for row in range(80)]


def test_rows_that_were_removed_are_no_antihubs(snapshot: Snapshot) -> None:
    gone = [snapshot.row(row).id for row in (3, 70)]
    remove_rows(snapshot.path, Choice(ids=gone))
    after = open_archive(snapshot.path)
    found = hubness(after, judged(after))
    assert len(found.rows) == 78
    assert not {3, 70} & set(found.rows.tolist())


def test_unlabelled_rows_are_left_out_where_they_could_not_be_found(snapshot: Snapshot) -> None:
    outcomes = judged(snapshot)
    rows = hubness(snapshot, outcomes, labelled_only=True).rows
    assert rows.tolist() == [r for r in range(80) if snapshot.row(r).label is not None]


def test_a_hub_in_the_middle_of_a_star_is_found() -> None:
    occurrences = np.array([9, *[1] * 9])
    found = Hubness(np.arange(10), occurrences, np.zeros(10, np.int64))
    assert found.hubs.tolist() == [True, *[False] * 9]
    even = found._replace(occurrences=np.full(10, 3))
    assert even.skewness is None
    assert not even.hubs.any()


def test_top_rows_and_distribution(snapshot: Snapshot) -> None:
    outcomes = judged(snapshot)
    found = hubness_as_dict(snapshot, outcomes, top=3)
    occurrences = hubness(snapshot, outcomes).occurrences
    assert [hub["occurrences"] for hub in found["top"]] == sorted(occurrences.tolist())[:-4:-1]
    for hub in found["top"]:
        row = snapshot.locate(hub["id"])
        assert row is not None
        assert snapshot.row(row).label == hub["label"]
        assert occurrences[row] == hub["occurrences"] >= hub["bad"]
    for step in found["distribution"]:
        inside = (occurrences >= step["low"]) & (occurrences <= step["high"])
        assert inside.sum() == step["rows"]
    assert sum(step["rows"] for step in found["distribution"]) == 80


def test_evaluate_diagnose_adds_it_all(
    snapshot: Snapshot, patchknn: Callable, tmp_path: Path
) -> None:
    command = ("evaluate", snapshot.path, "--exclude-same", "self", "--diagnose", "--k", 5)
    result = patchknn(*command, "--radius", 16, "--max-radius", 16, "--format", "ndjson")
    assert result.code == 0, result.err
    found = json.loads(result.out)["diagnosis"]
    assert found["hubness"] == hubness_as_dict(snapshot, judged(snapshot))
    assert len(found["balls"]) == 17
    assert found["balls"][16]["mean"] == 79
    plain = patchknn("evaluate", snapshot.path, "--exclude-same", "self", "--format", "ndjson")
    assert "diagnosis" not in json.loads(plain.out)
    table = patchknn(*command, "--format", "table")
    for title in ("Codes by class", "Rows in a ball", "skewness", "effective_bits"):
        assert title in table.out
