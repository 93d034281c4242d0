"""The coarse stages that compare hash vectors: L2 exactly, Annoy about."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from patchknn.errors import PatchknnError
from patchknn.search.engine import Searcher
from patchknn.search.query import Query, stored_query
from patchknn.search.settings import SearchSettings


def all_rows(snapshot):
    return [snapshot.row(row) for row in range(snapshot.n_rows)]


def key(row):
    return (row.source, row.y, row.x)


def brute_force(snapshot, query, s):
    """Rows by L2 of hash vectors; the pool; the pool by L2 of features."""
    features = np.concatenate([shard.features for shard in snapshot.shards])
    rows = [row for row in all_rows(snapshot) if row.id != query.patch_id]
    vectors = snapshot.bundle().hash_vectors(features).astype(np.float32).astype(float)
    feature = query.feature.astype(snapshot.settings.feature_dtype)
    target = snapshot.bundle().hash_vectors(feature[None]).astype(np.float32).astype(float)[0]
    coarse = np.sqrt(((vectors - target) ** 2).sum(axis=1))
    fine = np.sqrt(((features.astype(float) - feature.astype(float)) ** 2).sum(axis=1))
    order = sorted(rows, key=lambda row: (coarse[row.row], key(row)))

    def walk(pool):
        taken = []
        for row in sorted(pool, key=lambda row: (fine[row.row], key(row))):
            same = [other for other in taken if other.source == row.source]
            if s.max_per is None or len(same) < s.max_per[1]:
                taken.append(row)
        return taken[: s.k]

    for size in range(s.candidates, len(order) + 1):
        if len(walk(order[:size])) == s.k:
            return [row.row for row in walk(order[:size])], size
    return [row.row for row in walk(order)], len(order)


@pytest.mark.parametrize("max_per", [None, ("slide", 1), ("slide", 2)])
@pytest.mark.parametrize("candidates", [10, 25, 200])
@pytest.mark.parametrize("spread", [0, 1, 20])
def test_the_l2_stage_equals_brute_force(make_snapshot, rng, max_per, candidates, spread):
    snapshot = make_snapshot(rng, sizes=(60, 50), dim=6, spread=spread)
    s = SearchSettings(coarse="l2", candidates=candidates, k=10, max_per=max_per)
    searcher = Searcher(snapshot, s)
    for row in range(0, 110, 22):
        query = stored_query(snapshot, snapshot.row(row).id)
        answer = searcher.search(query)
        rows, pool = brute_force(snapshot, query, s)
        assert [neighbour.row for neighbour in answer.neighbours] == rows
        assert (answer.ball, answer.radius) == (pool, None)
        assert answer.widened == (pool > candidates)


def test_annoy_finds_nearly_what_l2_finds(make_snapshot, rng):
    snapshot = make_snapshot(rng, sizes=(400, 400), dim=16, bits=24, spread=30)
    found = {}
    for coarse in ("l2", "annoy"):
        searcher = Searcher(snapshot, SearchSettings(coarse=coarse))
        for row in range(0, 800, 40):
            query = stored_query(snapshot, snapshot.row(row).id)
            ids = {neighbour.id for neighbour in searcher.search(query).neighbours}
            assert query.name not in ids
            found.setdefault(row, []).append(ids)
    recall = np.mean([len(l2 & annoy) / 10 for l2, annoy in found.values()])
    assert recall > 0.9


@pytest.mark.parametrize("spread", [0, 20])
def test_annoy_answers_in_full_behind_filters(make_snapshot, rng, spread):
    snapshot = make_snapshot(rng, sizes=(300,), spread=spread)
    s = SearchSettings(coarse="annoy", labels=frozenset("a"), max_per=("slide", 2), k=8)
    searcher = Searcher(snapshot, s)
    answers = [searcher.search(Query("q", np.ones(4))) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(answers[0].neighbours) == 8
    assert {neighbour.label for neighbour in answers[0].neighbours} == {"a"}


@pytest.mark.parametrize(
    ("code", "err", "sentence"),
    [
        (-4, "", "Annoy does not work on this machine (killed by SIGILL): rebuild it here"),
        (1, "ModuleNotFoundError: No module named 'annoy'", "--coarse annoy needs Annoy"),
    ],
)
def test_an_annoy_that_crashes_is_found_out_in_another_process(
    make_snapshot, monkeypatch, code, err, sentence
):
    snapshot = make_snapshot(np.random.default_rng(1))

    def crash(*_, **__):
        return subprocess.CompletedProcess([], code, "", err)

    monkeypatch.setattr(subprocess, "run", crash)
    with pytest.raises(PatchknnError) as caught:  # once, not once for each query
        Searcher(snapshot, SearchSettings(coarse="annoy"))
    assert str(caught.value).startswith(sentence)
