"""The search over all rows in shares against the one in this process, which brute force checks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import ConflictError, InputError
from patchknn.evaluation.exhaustive import ExhaustiveSearch, Found
from patchknn.evaluation.exhaustive_shares import (
    ExhaustiveTask,
    SpreadExhaustiveSearch,
    search_share,
)
from patchknn.search.query import Query, stored_query
from patchknn.search.settings import SearchSettings
from patchknn.search.shares import shares_of
from patchknn.search.spread import Spreading

Make = Callable[..., Snapshot]


def as_lists(found: list[Found]) -> list[tuple[list[int], list[float]]]:
    return [(one.rows.tolist(), one.distances.tolist()) for one in found]


def some_queries(snapshot: Snapshot, rng: np.random.Generator, n: int) -> list[Query]:
    rows = rng.integers(0, snapshot.n_rows, n).tolist()
    stored = [stored_query(snapshot, snapshot.row(row).id) for row in rows]
    dim = snapshot.settings.feature_dim
    others = rng.integers(-1, 2, (n, dim)).astype(np.float16)
    return [*stored, *(Query("q", feature, patient="P2") for feature in others)]


@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
    st.fixed_dictionaries(
        {
            "k": st.integers(1, 30),
            "exclude_same": st.sampled_from(["none", "self", "slide", "patient"]),
            "labels": st.none() | st.just(frozenset({"A", "C"})),
            "labelled_only": st.booleans(),
            "max_per": st.none()
            | st.tuples(st.sampled_from(["slide", "patient"]), st.integers(1, 6)),
        }
    ),
    st.tuples(st.integers(1, 7), st.integers(1, 5)),
)
@settings(max_examples=40, deadline=None)
def test_shares_find_what_the_whole_finds(
    feature_archive: Make,
    seed: int,
    sizes: list[int],
    given_settings: dict[str, Any],
    spreading: tuple[int, int],
) -> None:
    wanted = SearchSettings(**given_settings)
    shares, block = spreading
    rng = np.random.default_rng(seed)
    snapshot = feature_archive([rng.integers(-1, 2, (n, 2)) for n in sizes])
    queries = some_queries(snapshot, rng, 4)
    targets = np.stack([query.feature for query in queries])
    whole = ExhaustiveSearch(snapshot, wanted).search(queries, targets)
    search = SpreadExhaustiveSearch(snapshot, wanted, Spreading(map, shares, block=block))
    spread = search.search(queries, targets)
    assert as_lists(spread) == as_lists(whole)


def test_other_processes_find_it_too(feature_archive: Make) -> None:
    rng = np.random.default_rng(1)
    snapshot = feature_archive([rng.normal(size=(n, 24)) for n in (50, 30, 60)])
    queries = some_queries(snapshot, rng, 10)
    targets = np.stack([query.feature for query in queries])
    wanted = SearchSettings(k=7, exclude_same="slide")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        spreading = Spreading(pool.map, 3, block=8)
        spread = SpreadExhaustiveSearch(snapshot, wanted, spreading).search(queries, targets)
    assert as_lists(spread) == as_lists(ExhaustiveSearch(snapshot, wanted).search(queries, targets))


def test_a_share_of_what_cannot_be_seen_is_refused(feature_archive: Make) -> None:
    snapshot = feature_archive([np.zeros((4, 3))])
    (share,) = shares_of(snapshot, 1)
    query = Query("q", np.zeros(3))
    for other, error in (
        (share._replace(number=8), InputError),
        (share._replace(nonce="0" * 32), ConflictError),
    ):
        with pytest.raises(error, match="very machine must see"):
            search_share(ExhaustiveTask(other, SearchSettings(), [query], np.zeros((1, 3))))
