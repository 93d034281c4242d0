"""Answers with few rows of a slide or patient: what they take, whatever the archive holds."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.archive.strings import StringTable
from patchknn.hamming.feature_table import FeatureTable
from patchknn.search.engine import Searcher
from patchknn.search.query import stored_query
from patchknn.search.rows import RowReader
from patchknn.search.settings import SearchSettings


@pytest.fixture(scope="module")
def snapshot(make_snapshot):
    return make_snapshot(np.random.default_rng(2), sizes=(4000,), indexed=1)


@pytest.mark.parametrize("kind", ["slide", "patient"])
def test_groups_are_numbered_as_few_as_are_asked_for(make_snapshot, rng, kind):
    snapshot = make_snapshot(rng, sizes=(30, 50))
    reader = RowReader(snapshot)
    stored = [snapshot.row(row) for row in range(len(snapshot))]
    names = [(kind == "patient" and row.patient) or f"source {row.source}" for row in stored]
    for _ in range(2):
        numbering: dict[object, int] = {}
        rows = rng.permutation(len(snapshot))
        several = np.split(rows, [1, 7, 40])
        numbers = np.concatenate([reader.groups(some, kind, numbering) for some in several])
        pairs = {(names[row], number) for row, number in zip(rows, numbers.tolist(), strict=True)}
        assert len(pairs) == len(set(names)) == len({number for _, number in pairs})
        assert sorted(numbering.values()) == list(range(len(pairs)))


def test_the_name_of_a_source_is_read_once(snapshot, monkeypatch):
    reader, read = RowReader(snapshot), []
    decoded = StringTable.take
    monkeypatch.setattr(
        StringTable, "take", lambda table, numbers: read.extend(numbers) or decoded(table, numbers)
    )
    monkeypatch.setattr(StringTable, "raw", lambda *_: pytest.fail("read one by one"))
    for start in range(0, 4000, 100):
        reader.groups(np.arange(start, start + 100), "slide", {})
    assert len(read) == len(set(read)) == sum(shard.n_sources for shard in snapshot.shards)


def test_where_the_groups_do_not_yield_enough_rows_are_ranked_once(snapshot, monkeypatch):
    asked = []
    ranked = FeatureTable.nearest

    def noted(table, query, starts, stops, k, **options):
        asked.append(k)
        return ranked(table, query, starts, stops, k, **options)

    monkeypatch.setattr(FeatureTable, "nearest", noted)
    query = stored_query(snapshot, snapshot.row(5).id)
    for settings in (
        SearchSettings(k=900, radius=16, max_per=("patient", 1)),
        SearchSettings(k=900, radius=0, max_radius=16, max_per=("patient", 1)),
        SearchSettings(k=900, radius=16, max_per=("patient", 1), labels=frozenset("ab")),
    ):
        asked.clear()
        answer = Searcher(snapshot, settings).search(query)
        assert 1 < len(answer.neighbours) < 900
        assert len(asked) == 1
        assert asked[0] >= answer.ball
