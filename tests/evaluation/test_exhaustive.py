from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.archive.choice import Choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.errors import InputError
from patchknn.evaluation import exhaustive
from patchknn.evaluation.exhaustive import ExhaustiveSearch
from patchknn.hamming import kernels
from patchknn.search.query import Query, row_queries
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]


def all_rows(snapshot: Snapshot) -> tuple[np.ndarray, list[tuple[str, int, int, str | None]]]:
    features = np.concatenate([np.asarray(s.features, np.float64) for s in snapshot.shards])
    known = [snapshot.row(row) for row in range(snapshot.n_rows)]
    return features, [(row.source, row.y, row.x, row.patient) for row in known]


def brute_force(
    snapshot: Snapshot, target: np.ndarray, k: int, patient: str | None
) -> list[tuple[float, str, int, int]]:
    """(distance, source, y, x) of the k nearest, one row after the other in float64."""
    features, facts = all_rows(snapshot)
    candidates = [
        (float(np.sqrt(((feature - target) ** 2).sum())), source, y, x)
        for feature, (source, y, x, owner) in zip(features, facts, strict=True)
        if patient is None or owner != patient
    ]
    return sorted(candidates)[:k]


def found(snapshot: Snapshot, search: ExhaustiveSearch, query: Query) -> list[tuple[object, ...]]:
    (best,) = search.search([query], query.feature[None])
    rows = [snapshot.row(row) for row in best.rows.tolist()]
    return [
        (distance, row.source, row.y, row.x)
        for distance, row in zip(best.distances.tolist(), rows, strict=True)
    ]


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("exclude", ["none", "patient"])
def test_agrees_with_brute_force(feature_archive: Make, scale: float, exclude: str) -> None:
    rng = np.random.default_rng(3)
    # Far from the origin the float32 product loses most: the margin must make up for it.
    shards = [rng.normal(scale, 1, (n, 24)) for n in (50, 3, 31)]
    snapshot = feature_archive(shards)
    search = ExhaustiveSearch(snapshot, SearchSettings(k=7, exclude_same=exclude))
    patient = "P1" if exclude == "patient" else None
    for _ in range(20):
        feature = rng.normal(scale, 1, 24).astype(np.float16)
        query = Query("q", feature, patient="P1")
        expected = brute_force(snapshot, feature.astype(np.float64), 7, patient)
        assert found(snapshot, search, query) == expected


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_ties_are_ordered_by_source_y_and_x(feature_archive: Make, seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    snapshot = feature_archive([rng.integers(-1, 2, (n, 2)) for n in (9, 20)])
    search = ExhaustiveSearch(snapshot, SearchSettings(k=k, exclude_same="none"))
    feature = rng.integers(-1, 2, 2).astype(np.float16)
    expected = brute_force(snapshot, feature.astype(np.float64), k, None)
    assert found(snapshot, search, Query("q", feature)) == expected


@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.sampled_from(["slide", "patient"]),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_no_more_rows_of_a_slide_or_patient_than_asked_for(
    feature_archive: Make, seed: int, k: int, kind: str, most: int
) -> None:
    rng = np.random.default_rng(seed)
    # Many ties, one patient nearest of all, and sometimes fewer groups than answers.
    snapshot = feature_archive([rng.integers(-1, 2, (n, 2)) for n in (30, 1, 20)])
    limits = SearchSettings(k=k, exclude_same="none", max_per=(kind, most))
    feature = rng.integers(-1, 2, 2).astype(np.float16)
    expected, seen = [], Counter[str | None]()
    owners = {row.source: row.patient for row in map(snapshot.row, range(snapshot.n_rows))}
    for entry in brute_force(snapshot, feature.astype(np.float64), snapshot.n_rows, None):
        group = entry[1] if kind == "slide" else owners[entry[1]]
        if seen[group] < most and len(expected) < k:
            expected.append(entry)
            seen[group] += 1
    assert found(snapshot, ExhaustiveSearch(snapshot, limits), Query("q", feature)) == expected


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 30),
    exclude=st.sampled_from(["none", "self", "slide", "patient"]),
    limits=st.sampled_from([{}, {"labelled_only": True}, {"labels": frozenset({"A", "C"})}]),
    dropped=st.sampled_from([0.0, 0.5, 1.0, 256.0]),
    kernel=st.sampled_from(kernels.available()),
)
@settings(max_examples=40, deadline=None)
def test_what_may_not_answer_does_not(
    feature_archive: Make,
    *,
    seed: int,
    k: int,
    exclude: str,
    limits: dict[str, Any],
    dropped: float,
    kernel: str,
) -> None:
    """A block of stored rows as queries, against one row after the other in float64."""
    rng = np.random.default_rng(seed)
    # Equal vectors abound; slides lie in one shard each, patients in all of them.
    snapshot = feature_archive([rng.integers(-2, 3, (n, 3)) for n in (25, 1, 40)], seed=seed)
    features, _ = all_rows(snapshot)
    rows = [snapshot.row(row) for row in range(snapshot.n_rows)]
    asked = rng.permutation(len(rows))[:20].tolist()
    queries = [
        query
        for shard in snapshot.shards
        for query in row_queries(snapshot, shard, shard.live_rows())
        if query.row in asked
    ]
    search = SearchSettings(k=k, exclude_same=exclude, **limits)
    with kernels.use(kernel), pytest.MonkeyPatch.context() as patch:
        patch.setattr(exhaustive, "_RUNS_PER_ROW", dropped)
        targets = np.stack([query.feature for query in queries])
        found = ExhaustiveSearch(snapshot, search, threads=2).search(queries, targets)
    for query, best in zip(queries, found, strict=True):
        same = {
            "none": lambda row: False,
            "self": lambda row, own=query: row.id == own.patch_id,
            "slide": lambda row, own=query: row.source == own.source,
            "patient": lambda row, own=query: row.patient == own.patient,
        }[exclude]
        ranked = sorted(
            (float(np.sqrt(((features[row.row] - query.feature) ** 2).sum())), *place, row.row)
            for row in rows
            for place in [(row.source, row.y, row.x)]
            if not same(row)
            and (not search.labelled_only or row.label is not None)
            and (search.labels is None or row.label in search.labels)
        )[:k]
        assert best.rows.tolist() == [row for *_, row in ranked]
        assert best.distances.tolist() == [distance for distance, *_ in ranked]


def test_rows_that_were_removed_are_not_found(feature_archive: Make) -> None:
    snapshot = feature_archive([np.arange(12).reshape(6, 2), np.arange(8).reshape(4, 2)])
    gone = [snapshot.row(row).id for row in (1, 3, 7)]
    remove_rows(snapshot.path, Choice(ids=tuple(gone)))
    left = open_archive(snapshot.path)
    search = ExhaustiveSearch(left, SearchSettings(k=10, exclude_same="none"))
    (best,) = search.search([Query("q", np.zeros(2))], np.zeros((1, 2)))
    names = {left.row(row).id for row in best.rows.tolist()}
    assert len(names) == 7
    assert not names & set(gone)


def test_rows_without_a_vector_are_not_found(feature_archive: Make) -> None:
    snapshot = feature_archive([np.zeros((4, 3)), np.zeros((2, 3))])
    colours = [np.array([[1.0, 1, 1], [np.nan] * 3, [3, 3, 3], [2, 2, 2]]), np.full((2, 3), np.nan)]
    search = ExhaustiveSearch(snapshot, SearchSettings(k=5, exclude_same="none"), colours)
    (best,) = search.search([Query("q", np.empty(0))], np.ones((1, 3)))
    assert best.rows.tolist() == [0, 3, 2]
    np.testing.assert_allclose(best.distances, [0, 3**0.5, 12**0.5])


def test_a_filter_that_needs_the_patient_says_so(feature_archive: Make) -> None:
    snapshot = feature_archive([np.zeros((4, 3))])
    search = ExhaustiveSearch(snapshot, SearchSettings(exclude_same="patient"))
    with pytest.raises(InputError, match="q has no known patient"):
        search.search([Query("q", np.zeros(3))], np.zeros((1, 3)))
