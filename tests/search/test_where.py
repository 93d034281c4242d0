"""Filtering by records is filtering brute force by them, whatever else the search does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.records_attach import attach_records
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.errors import UsageError
from patchknn.evaluation.exhaustive import ExhaustiveSearch
from patchknn.search.answers import Failure
from patchknn.search.engine import Searcher
from patchknn.search.fields import NeighbourFields
from patchknn.search.query import Query, stored_query
from patchknn.search.settings import SearchSettings

_SPEC = importlib.util.spec_from_file_location("engine", Path(__file__).with_name("test_engine.py"))
engine = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(engine)

ORGANS = ("colon", "liver", None)
WHERE = "organ = 'colon' and year >= 2014 or sex = 'F'"


def organ_and_year(source):
    """What the table says of a source called ``s<shard>-<number>``."""
    shard, number = int(source[1 : source.index("-")]), int(source[-1])
    return ORGANS[(shard + number) % 3], None if number == 4 else 2012 + number


def is_meant(row):
    organ, year = organ_and_year(row["source"])
    return (organ == "colon" and year is not None and year >= 2014) or row["patient"] == "P1"


@pytest.fixture
def with_records(make_snapshot, rng, tmp_path):
    """A snapshot with records of its slides and patients, with a slide removed or without."""

    def make(removed=True, **shape):
        path = make_snapshot(rng, **shape).path
        names = sorted({source.name for source in open_archive(path).sources()})
        lines = ["slide,organ,year"]
        for name in names:
            organ, year = organ_and_year(name)
            lines.append(f"{name},{organ or ''},{'' if year is None else year}")
        slides, patients = tmp_path / "slides.csv", tmp_path / "patients.csv"
        slides.write_text("\n".join(lines))
        patients.write_text("patient,sex\nP0,M\nP1,F\n")
        attach_records(path, slides, "slide")
        attach_records(path, patients, "patient")
        if removed:
            remove_rows(path, Choice(slides=[names[0]]))
        return open_archive(path)

    return make


@pytest.fixture
def brute_force(monkeypatch):
    """The brute force of the engine's tests, of live rows that are meant."""
    eligible = engine.eligible_rows

    def meant_rows(snapshot, query, s):
        for row in eligible(snapshot, query, s):
            shard, local = snapshot.shard_of(row["row"])
            if shard.is_live(np.array([local]))[0] and is_meant(row):
                yield row

    monkeypatch.setattr(engine, "eligible_rows", meant_rows)
    return engine.brute_force


@pytest.mark.parametrize(("indexed", "removed"), [(0, True), (1, False), (3, False)])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"exclude_same": "slide", "k": 30},
        {"labels": frozenset("ab"), "exclude_same": "none"},
        {"max_per": ("patient", 2), "radius": 3},
        {"labelled_only": True, "max_radius": 4},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_where_is_brute_force(with_records, brute_force, indexed, removed, more):
    snapshot = with_records(removed, sizes=(30, 20, 25), indexed=indexed)
    s = SearchSettings(**{"k": 7, "where": WHERE, **more})
    queries = [stored_query(snapshot, snapshot.row(row).id) for row in live_rows(snapshot)[::9]]
    searcher = Searcher(snapshot, s, threads=2)
    answers = list(searcher.search_many(queries))
    for query, answer in zip(queries, answers, strict=True):
        expected = brute_force(snapshot, query, s)
        engine.assert_same(answer, expected, s)
        engine.assert_same(searcher.search(query), expected, s)
    assert any(answer.neighbours for answer in answers)


@pytest.mark.parametrize("coarse", ["l2", "annoy"])
def test_where_filters_the_other_coarse_stages_too(with_records, coarse):
    snapshot = with_records(sizes=(30, 20))
    s = SearchSettings(k=50, where=WHERE, coarse=coarse, exclude_same="none")
    query = Query("q", np.zeros(4, np.float32))
    meant = [r["row"] for r in engine.everything(snapshot) if is_meant(r)]
    found = [n.row for n in Searcher(snapshot, s).search(query).neighbours]
    assert sorted(found) == sorted(set(meant) & set(live_rows(snapshot)))


def test_features_alone_are_filtered(with_records, brute_force):
    snapshot = with_records(removed=False, sizes=(30, 20), indexed=2)
    s = SearchSettings(k=9, where=WHERE, exclude_same="none", radius=16)
    feature = np.ones(4, np.float16)
    expected, _, _ = brute_force(snapshot, Query("q", feature), s)
    searcher = Searcher(snapshot, s)
    codes = snapshot.bundle().codes(feature[None])
    rows = [row["row"] for row in expected]
    assert searcher.find(feature, codes[0]).rows.tolist() == rows
    assert searcher.find_many(feature[None], codes)[0].rows.tolist() == rows
    exhaustive = ExhaustiveSearch(snapshot, s)
    (best,) = exhaustive.search([Query("q", feature)], feature[None])
    assert best.rows.tolist() == rows


def test_nothing_is_meant(with_records):
    snapshot = with_records(sizes=(30,))
    s = SearchSettings(where="organ = 'spleen'")
    answer = Searcher(snapshot, s).search(Query("q", np.zeros(4, np.float32)))
    assert (answer.neighbours, answer.ball, answer.prediction) == ((), 0, None)


def test_fields_are_those_of_the_records(with_records):
    snapshot = with_records(sizes=(30, 20))
    fields = NeighbourFields(snapshot, ["YEAR", "sex", "organ", "year"])
    assert fields.names == ("year", "sex", "organ")
    query = Query("q", np.zeros(4, np.float32))
    answer = Searcher(snapshot, SearchSettings(k=40, radius=16)).search(query)
    failure = Failure("x", "gone")
    filled, other = fields.beside([answer, failure])
    assert other is failure
    assert filled._replace(neighbours=answer.neighbours) == answer
    assert len({n.source for n in filled.neighbours}) > 5
    for neighbour in filled.neighbours:
        organ, year = organ_and_year(neighbour.source)
        sex = {"P0": "M", "P1": "F", None: None}[neighbour.patient]
        assert list(neighbour.fields.items()) == [("year", year), ("sex", sex), ("organ", organ)]
        assert neighbour.as_json()["fields"] is neighbour.fields
    assert "fields" not in answer.neighbours[0].as_json()


def test_a_wrong_expression_or_field_is_a_usage_error(with_records):
    snapshot = with_records(sizes=(5,))
    with pytest.raises(UsageError, match="--where"):
        Searcher(snapshot, SearchSettings(where="organ = colon"))
    with pytest.raises(UsageError, match="--fields: there is no field 'yaer'; perhaps 'year'"):
        NeighbourFields(snapshot, ["yaer"])


def live_rows(snapshot):
    return [
        shard.first_row + row for shard in snapshot.shards for row in shard.live_rows().tolist()
    ]
