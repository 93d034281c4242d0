"""Rows that were removed answer no more, whichever way the search takes.

The oracle is the same archive compacted, in which they are not at all.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.relabel import Correction, relabel_choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.search.engine import Searcher
from patchknn.search.query import Query, stored_query
from patchknn.search.settings import SearchSettings
from patchknn.search.two_stage import TwoStage

_SETTINGS = [
    {"radius": 0},
    {"radius": 1, "k": 3},
    {"radius": 2, "max_radius": 2, "k": 30},
    {"radius": 1, "exclude_same": "slide"},
    {"radius": 1, "exclude_same": "none", "k": 100},
    {"radius": 2, "labels": frozenset({"a"})},
    {"radius": 2, "labelled_only": True},
    {"radius": 2, "max_per": ("slide", 2)},
    {"coarse": "l2", "candidates": 12},
]


def _answers(snapshot, settings, threads):
    searcher = Searcher(snapshot, settings, threads)
    random = np.random.default_rng(3)
    ids = sorted(row.id for row in list_rows(snapshot))[::4]
    queries = [stored_query(snapshot, identity) for identity in ids]
    dim = snapshot.settings.feature_dim
    queries += [Query(f"q{n}", random.normal(size=dim).astype(np.float32)) for n in range(6)]
    together = list(searcher.search_many(queries))
    assert together == [searcher.search(query) for query in queries]
    return [answer.as_json() for answer in together]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("settings", _SETTINGS, ids=range(len(_SETTINGS)))
def test_answers_are_those_of_the_compacted_archive(make_snapshot, tmp_path, settings, indexed):
    random = np.random.default_rng(8)
    made = make_snapshot(random, sizes=(60, 40, 30), spread=1)
    path = tmp_path / "archive"
    shutil.copytree(made.path, path)
    if indexed:
        update_index(path, rebuild=True)
    ids = sorted({row.id for row in list_rows(open_archive(path))})
    remove_rows(path, Choice(ids=random.choice(ids, 45, replace=False).tolist()))
    relabel_choice(path, Choice(slides=["s0-1"]), Correction("a"))
    remove_rows(path, Choice(slides=["s1-2"]))
    shutil.copytree(path, tmp_path / "compacted")
    compact(tmp_path / "compacted")
    wanted = SearchSettings(**settings)
    removed, compacted = open_archive(path), open_archive(tmp_path / "compacted")
    assert removed.has_removed
    assert not compacted.has_removed
    for threads in (1, 2):
        assert _answers(removed, wanted, threads) == _answers(compacted, wanted, threads)


def test_a_ball_that_suffices_is_found_at_once(make_snapshot, tmp_path, monkeypatch):
    made = make_snapshot(np.random.default_rng(1), sizes=(200,), spread=1)
    path = tmp_path / "archive"
    shutil.copytree(made.path, path)
    update_index(path, rebuild=True)
    remove_rows(path, Choice(slides=["s0-1"]))
    snapshot = open_archive(path)
    row = next(iter(list_rows(snapshot))).row
    monkeypatch.setattr(TwoStage, "_looking", lambda *_: pytest.fail("each row is looked at"))
    searcher = Searcher(snapshot, SearchSettings(k=1, radius=2, exclude_same="none"))
    assert searcher.search(stored_query(snapshot, snapshot.row(row).id)).ball > 0
