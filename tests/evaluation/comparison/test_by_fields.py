from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.records_attach import attach_records
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.errors import UsageError
from patchknn.evaluation.comparison.by_fields import (
    COLUMNS,
    QueryFields,
    field_rows,
    manifest_columns,
)
from patchknn.evaluation.evaluate import METHOD, Contestant, evaluate_all
from patchknn.evaluation.ways import in_this_process
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]
SCANNERS = {"t0": "old", "t1": "new", "t2": "old"}
AGES = {"P1": 61, "P2": 7}


@pytest.fixture
def archive(feature_archive: Make) -> Snapshot:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 80)
    snapshot = feature_archive([rng.normal(size=(80, 4)) + 2 * np.eye(4)[labels]], labels=[labels])
    folder = snapshot.path.parent
    slides = folder / "slides.csv"
    rows = [f"{slide},{scanner}" for slide, scanner in SCANNERS.items()]
    slides.write_text("\n".join(["slide,Scanner", *rows, "s0-1,"]))
    patients = folder / "patients.csv"
    patients.write_text("\n".join(["patient,age", *(f"{p},{age}" for p, age in AGES.items())]))
    attach_records(snapshot.path, slides, "slide")
    attach_records(snapshot.path, patients, "patient")
    return open_archive(snapshot.path)


def queries() -> list[Query]:
    """Of four slides, one of them without a record, and of three patients and nobody."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 60)
    features = (rng.normal(size=(60, 4)) + 2 * np.eye(4)[labels]).astype(np.float16)
    patients = ["P1", "P2", "P3", None]
    return [
        Query(
            f"q{i}",
            features[i],
            source=f"t{i % 4}",
            patient=patients[(i // 4) % 4],
            label="ABC"[labels[i]],
        )
        for i in range(60)
    ]


def test_figures_are_those_of_the_queries_of_each_value(archive: Snapshot) -> None:
    fields = QueryFields(archive, ["scanner", "age", "patient", "slide"])
    assert fields.names == ("Scanner", "age", "patient", "slide")
    settings = SearchSettings(k=5, exclude_same="none")
    contestant = Contestant(METHOD, settings, in_this_process(archive, settings))

    def told(query: Query, _: object) -> None:
        fields.add(query)

    (whole,) = evaluate_all(archive, queries(), [contestant], on_answered=told)
    rows = field_rows(fields, [whole], 50, 0)

    def value_of(query: Query, field: str) -> object:
        return {
            "Scanner": SCANNERS.get(query.source or ""),
            "age": AGES.get(query.patient or ""),
            "patient": query.patient,
            "slide": query.source,
        }[field]

    found = [(row["field"], row["value"]) for row in rows]
    slides, patients = ["t0", "t1", "t2", "t3"], ["P1", "P2", "P3", None]
    assert found == [
        *(("Scanner", value) for value in ("new", "old", None)),
        *(("age", value) for value in (7, 61, None)),
        *(("patient", value) for value in patients),
        *(("slide", value) for value in slides),
    ]
    correct = dict(zip(whole.outcomes.queries, whole.outcomes.correct.tolist(), strict=True))
    for row in rows:
        mine = [q for q in queries() if value_of(q, row["field"]) == row["value"]]
        assert row["n"] == len(mine)
        assert row["accuracy"] == pytest.approx(np.mean([correct[q.name] for q in mine]))
        known = {q.patient for q in mine if q.patient is not None}
        assert row["patients"] == len(known) + sum(q.patient is None for q in mine)
        assert ("accuracy" in row["intervals"]) == (row["patients"] > 1)
        assert set(COLUMNS) <= set(row)


def test_methods_that_were_asked_others_are_told_apart_by_names(archive: Snapshot) -> None:
    fields = QueryFields(archive, ["Scanner"])
    settings = SearchSettings(k=5, exclude_same="none")
    contestant = Contestant(METHOD, settings, in_this_process(archive, settings))
    (first,) = evaluate_all(
        archive, queries(), [contestant], on_answered=lambda query, _: fields.add(query)
    )
    stranger = queries()[0]._replace(name="another")
    some = [stranger, *queries()[::-1][10:]]
    other = contestant._replace(method="other", settings=settings._replace(k=3))
    (second,) = evaluate_all(archive, some, [other])
    rows = field_rows(fields, [first, second], 0, 0)
    found = {(row["value"], row["method"]): row for row in rows}
    correct = dict(zip(second.outcomes.queries, second.outcomes.correct.tolist(), strict=True))
    for value in ("new", "old", None):
        mine = [q for q in queries()[:-10] if SCANNERS.get(q.source or "") == value]
        row = found[value, "other"]
        assert row["n"] == len(mine)
        assert row["accuracy"] == pytest.approx(np.mean([correct[q.name] for q in mine]))
        assert found[value, METHOD]["n"] > len(mine)


def test_columns_of_the_manifest_that_names_the_queries(archive: Snapshot, tmp_path: Path) -> None:
    manifest = tmp_path / "some.csv"
    manifest.write_text(
        "path,x,y,scanner,stain\na.png,,,new,pale\nslide.svs,0,64,old,\nslide.svs,64,0,new,dark\n"
        "whole.svs,,,old,dark\n"
    )
    columns = manifest_columns([str(tmp_path), str(manifest)], ["Scanner", "stain", "scanner"])
    assert columns == {
        "scanner": {
            "a.png": "new",
            "slide.svs@0_64": "old",
            "slide.svs@64_0": "new",
            "whole.svs": "old",
        },
        "stain": {
            "a.png": "pale",
            "slide.svs@0_64": None,
            "slide.svs@64_0": "dark",
            "whole.svs": "dark",
        },
    }
    fields = QueryFields(archive, ["stain", "age"], columns)
    for patch_id in ("slide.svs@64_0", "a.png", "slide.svs@0_64", "whole.svs@8_8", "else.png"):
        source = patch_id.partition("@")[0]
        fields.add(Query("q", np.zeros(4), patch_id=patch_id, source=source, patient="P2"))
    values, places = fields.values("stain")
    assert [values[place] for place in places] == ["dark", "pale", None, "dark", None]
    values, places = fields.values("age")
    assert {values[place] for place in places} == {7}


def test_a_field_that_is_not_there(archive: Snapshot) -> None:
    with pytest.raises(UsageError, match=r"--by: there is no field 'scaner'; perhaps 'Scanner'"):
        QueryFields(archive, ["scaner"])
