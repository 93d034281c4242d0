"""``patchknn archive records`` and what its fields are good for on the command line."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter


def _module(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_HERE = Path(__file__).parent
helpers = _module("archive_helpers", _HERE.parent / "archive" / "conftest.py")
place = _module("evaluate_helpers", _HERE / "test_evaluate.py").place

SLIDES = """slide,organ,year,biopsied,stain [mpp],order,label,died
a.svs,colon,2015,2015-03-01,0.25,1,x,true
b.svs,liver,2014,,NaN,2,,false
c.svs,"[red]colon[/red], left",2019,2019-12-24,0.5,3,y,
old.svs,skin,2001,2001-01-01,0.5,4,,
"""
CLINICAL = "Patient\tsex\nP0\tF\nP1\tM\n"
ALL = ("--k", 30, "--radius", 16, "--exclude-same", "none")


@pytest.fixture
def bare(tmp_path):
    """Two shards of a.png, b.png, a.svs (of P0), b.svs (of P1), and of c and d likewise."""
    bundle = helpers.build_bundle(tmp_path / "encoder")
    path = tmp_path / "archive"
    create_archive(path, bundle, patch_px=224, mpp=0.5)
    for seed, names in enumerate(("ab", "cd")):
        images, slides = ([f"{n}.{suffix}" for n in names] for suffix in ("png", "svs"))
        with ArchiveWriter(path, format="hdf5") as writer:
            writer.add(helpers.build_rows(bundle, seed=seed, images=images, slides=slides))
            writer.publish()
    (tmp_path / "slides.csv").write_text(SLIDES)
    (tmp_path / "clinical.tsv").write_text(CLINICAL)
    return path


@pytest.fixture
def archive(bare, patchknn):
    """The same with both tables attached."""
    for name, key in (("slides.csv", "slide"), ("clinical.tsv", "patient")):
        file = bare.parent / name
        assert patchknn("archive", "records", "attach", bare, file, "--key", key).code == 0
    return bare


def some_id(archive, source="d.svs"):
    snapshot = open_archive(archive)
    rows = (snapshot.row(row) for row in range(snapshot.n_rows))
    return next(row.id for row in rows if row.source == source)


def neighbours(result):
    assert result.code == 0, result.err
    return json.loads(result.out)["neighbours"]


def test_attach_says_what_came_of_it(bare, patchknn):
    line = ("archive", "records", "attach", bare, bare.parent / "slides.csv", "--key", "slide")
    first = patchknn(*line, "--format", "tsv")
    header, row = (text.split("\t") for text in first.out.splitlines())
    told = dict(zip(header, row, strict=True))
    assert (told["table"], told["key"], told["rows"]) == ("slides.csv", "slide", "4")
    assert (told["fields"], told["not_in_archive"], told["replaced"]) == ("7", "1", "False")
    assert told["snapshot"] == "3"
    assert first.err == (
        f"warning: {bare.parent / 'slides.csv'}: 1 of 4 rows are of a slide that {bare} lacks, "
        "such as 'old.svs'.\n"
    )
    again = patchknn(*line)
    assert (again.code, json.loads(again.out)["snapshot"]) == (0, None)
    wrong = patchknn(*line[:-1], "patient")
    assert (wrong.code, wrong.out) == (1, "")
    assert "has no column 'patient': it has slide, organ, year" in wrong.err
    assert patchknn(*line[:-1], "tissue").code == 2


def test_attach_in_a_dry_run_does_nothing(bare, patchknn):
    before = sorted(bare.rglob("*"))
    line = ("archive", "records", "attach", bare, bare.parent / "clinical.tsv")
    result = patchknn(*line, "--key", "patient", "--dry-run")
    assert json.loads(result.out)["rows"] == 2
    assert sorted(bare.rglob("*")) == before


def test_show_prints_the_schema(archive, patchknn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    result = patchknn("archive", "records", "show", archive, "--format", "tsv")
    header, *rows = [line.split("\t") for line in result.out.splitlines()]
    assert header == ["table", "key", "field", "type", "rows", "filled", "distinct", "example"]
    assert rows == [
        ["slides.csv", "slide", "organ", "VARCHAR", "4", "4", "4", rows[0][7]],
        ["slides.csv", "slide", "year", "BIGINT", "4", "4", "4", "2001 to 2019"],
        ["slides.csv", "slide", "biopsied", "DATE", "4", "3", "3", "2001-01-01 to 2019-12-24"],
        ["slides.csv", "slide", "stain [mpp]", "DOUBLE", "4", "3", "2", "0.25 to 0.5"],
        ["slides.csv", "slide", "order", "BIGINT", "4", "4", "4", "1 to 4"],
        ["slides.csv", "slide", "label", "VARCHAR", "4", "2", "2", "x; y"],
        ["slides.csv", "slide", "died", "BOOLEAN", "4", "2", "2", "false; true"],
        ["clinical.tsv", "patient", "sex", "VARCHAR", "2", "2", "2", "F; M"],
    ]
    table = patchknn("archive", "records", "show", archive, "--format", "table").out
    assert "[red]colon[/red], left" in " ".join(table.split())
    assert "stain [mpp]" in table
    before = patchknn("archive", "records", "show", archive, "--at", 3).out.splitlines()
    assert {json.loads(line)["table"] for line in before} == {"slides.csv"}
    assert patchknn("archive", "records", "show", archive, "--at", 2).out == ""


def test_detach_takes_a_table_off(archive, patchknn):
    result = patchknn("archive", "records", "detach", archive, "slides.csv")
    assert (result.code, json.loads(result.out)["snapshot"]) == (0, 5)
    shown = patchknn("archive", "records", "show", archive).out.splitlines()
    assert [json.loads(line)["field"] for line in shown] == ["sex"]
    wrong = patchknn("archive", "records", "detach", archive, "slides.csv")
    assert wrong.code == 2
    assert "it has clinical.tsv." in wrong.err
    log = patchknn("archive", "log", archive, "--limit", 1).out
    assert json.loads(log)["action"] == "detach"


def test_query_prints_fields_beside_each_neighbour(archive, patchknn):
    line = ("query", archive, "--id", some_id(archive), *ALL)
    found = neighbours(patchknn(*line, "--fields", 'year,biopsied,Sex,"stain [mpp]",died'))
    by_source = {n["source"]: n["fields"] for n in found}
    names = ("year", "biopsied", "sex", "stain [mpp]", "died")
    expected = {
        "a.svs": (2015, "2015-03-01", "F", 0.25, True),
        "b.svs": (2014, None, "M", None, False),
        "c.svs": (2019, "2019-12-24", "F", 0.5, None),
        "d.svs": (None, None, "M", None, None),
        **dict.fromkeys(("a.png", "b.png", "c.png", "d.png"), (None,) * 5),
    }
    assert by_source == {k: dict(zip(names, v, strict=True)) for k, v in expected.items()}
    assert list(by_source["a.svs"]) == list(names)
    plain = neighbours(patchknn(*line))
    assert plain == [{k: v for k, v in n.items() if k != "fields"} for n in found]


def test_fields_in_tsv_and_in_a_table(archive, patchknn, monkeypatch):
    line = ("query", archive, "--id", some_id(archive), *ALL, "--fields", "organ,label,died")
    result = patchknn(*line, "--format", "tsv")
    header, *rows = csv.reader(io.StringIO(result.out), delimiter="\t")
    assert header[-4:] == ["abstained", "organ", "fields.label", "died"]
    values = {tuple(row[-3:]) for row in rows if row[6] in {"a.svs", "c.svs", "d.png"}}
    assert values == {("colon", "x", "true"), ("[red]colon[/red], left", "y", ""), ("", "", "")}
    monkeypatch.setenv("COLUMNS", "160")
    table = patchknn(*line, "--format", "table").out
    assert "[red]colon[/red], left" in table
    assert table.splitlines()[1].split()[-3:] == ["organ", "label", "died"]


def test_where_answers_as_if_the_other_slides_were_not_there(archive, patchknn, tmp_path):
    where = "organ like '%colon%' and year >= 2015 or sex = 'M' and slide <> 'b.svs'"
    line = ("--id", some_id(archive), "--k", 6, "--max-radius", 16)
    result = patchknn("query", archive, *line, "--where", where)
    assert {n["source"] for n in neighbours(result)} <= {"a.svs", "c.svs", "d.svs"}
    other = tmp_path / "other"
    shutil.copytree(archive, other)
    slides = [v for n in ("b.svs", "a.png", "b.png", "c.png", "d.png") for v in ("--slide", n)]
    assert patchknn("archive", "remove", other, *slides).code == 0
    assert patchknn("query", other, *line).out == result.out
    assert patchknn("query", archive, *line).out != result.out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--fields", "orgam"), "--fields: there is no field 'orgam'; perhaps 'organ' is meant."),
        (("--fields", "organ,,year"), "--fields organ,,year: give names with commas"),
        (("--where", "organ = 1"), "cannot be used: could not convert"),
        (("--where", "exists (from '/etc/passwd')"), "it holds a subquery"),
        (("--where", "true; drop table given"), 'syntax error at or near ";"'),
        (("--where", 'organ = "colon"'), "a text stands in single quotes: 'colon'."),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(archive, patchknn, more, sentence):
    result = patchknn("query", archive, "--id", some_id(archive), *more)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert len(result.err.splitlines()) == 1


def test_without_records_the_remedy_is_named(bare, patchknn):
    for more in (("--fields", "organ"), ("--where", "organ = 'colon'")):
        result = patchknn("query", bare, "--id", some_id(bare), *more)
        assert result.code == 2
        assert "see 'patchknn archive records attach --help'" in result.err


def test_an_answer_file_tells_other_fields_and_conditions_apart(archive, patchknn, tmp_path):
    out = tmp_path / "out.ndjson"
    line = ("query", archive, "--id", some_id(archive), "-o", out)
    for more, answered in (
        ((), 1),
        ((), 0),
        (("--fields", "organ"), 1),
        (("--fields", "ORGAN"), 0),
        (("--fields", "organ,year"), 1),
        (("--where", "true"), 1),
        (("--where", "year > 2000"), 1),
        (("--where", "year > 2000"), 0),
    ):
        result = patchknn(*line, *more)
        assert f"{out}: {answered} answered, {1 - answered} skipped" in result.err, more
    # The file of a version that knew neither is gone on with.
    recorded = out.with_name("out.ndjson.settings.json")
    patchknn(*line)
    assert not {"where", "fields"} & set(json.loads(recorded.read_text()))


def test_remove_and_relabel_take_where(archive, patchknn):
    line = ("archive", "remove", archive, "--where", "year < 2015", "--patient", "P0")
    dry = json.loads(patchknn(*line, "--dry-run").out)
    assert (dry["rows_removed"], dry["sources_removed"]) == (15, 3)
    assert len(open_archive(archive)) == 24
    line = ("archive", "relabel", archive, "--where", "died or slide = 'd.png'", "--to", "MUC")
    assert json.loads(patchknn(*line).out)["rows_relabelled"] == 6
    listed = patchknn("archive", "list", archive, "--label", "MUC").out.splitlines()
    assert {json.loads(row)["source"] for row in listed} == {"a.svs", "d.png"}
    line = ("archive", "remove", archive, "--where", "sex = 'F'", "--label", "MUC")
    assert json.loads(patchknn(*line).out)["sources_removed"] == 1
    assert {s.name for s in open_archive(archive).sources()} == {
        *("a.png", "b.png", "c.png", "d.png"),
        *("b.svs", "c.svs", "d.svs"),
    }
    none = patchknn("archive", "remove", archive, "--where", "year > 3000")
    assert (none.code, json.loads(none.out)["snapshot"]) == (0, None)
    wrong = patchknn("archive", "relabel", archive, "--where", "true")
    assert wrong.code == 2
    wrong = patchknn("archive", "remove", archive, "--where", "yeer > 3000")
    assert wrong.code == 2
    assert "perhaps 'year' is meant" in wrong.err


def test_verify_names_a_damaged_table(archive, patchknn):
    assert patchknn("archive", "verify", archive).code == 0
    (file,) = (f for f in (archive / "records").iterdir() if b"sex" in f.read_bytes())
    file.write_bytes(file.read_bytes()[:-9])
    result = patchknn("archive", "verify", archive)
    assert result.code == 1
    assert f"records/{file.name}" in result.out
    assert patchknn("query", archive, "--id", some_id(archive)).code == 0
    broken = patchknn("query", archive, "--id", some_id(archive), "--fields", "sex")
    assert broken.code == 1
    assert f"patchknn archive verify {archive}" in broken.err


def test_a_query_without_records_does_not_import_duckdb(archive):
    program = f"""
import sys
from patchknn.cli.main import run
line = ["query", {str(archive)!r}, "--id", {some_id(archive)!r}]
assert run(line) == 0
assert "duckdb" not in sys.modules
assert run([*line, "--where", "sex = 'F'", "--fields", "sex"]) == 0
assert not {{"torch", "zarr", "h5py", "rich", "pandas", "pyarrow"}} & set(sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_evaluate_takes_where(place, patchknn, tmp_path):
    archive, other = tmp_path / "archive", tmp_path / "other"
    shutil.copytree(place / "archive", archive)
    (tmp_path / "p.csv").write_text("patient,site\nP1,Ulm\nP2,Bonn\n")
    attach = ("archive", "records", "attach", archive, tmp_path / "p.csv", "--key", "patient")
    assert patchknn(*attach).code == 0
    shutil.copytree(archive, other)
    assert patchknn("archive", "remove", other, "--patient", "P2").code == 0
    asked = (place / "ask.csv", "--exclude-same", "self", "--device", "cpu", "--k", 3)
    only = patchknn("evaluate", archive, *asked, "--where", "site = 'Ulm'")
    assert only.code == 0, only.err
    expected = json.loads(patchknn("evaluate", other, *asked).out)
    found = json.loads(only.out)
    assert found.pop("settings")["where"] == "site = 'Ulm'"
    assert expected.pop("settings")["where"] is None
    assert found == expected
    everything = json.loads(patchknn("evaluate", archive, *asked).out)
    assert everything["mean_ball"] != found["mean_ball"]
    assert patchknn("evaluate", archive, *asked, "--where", "sight = 'Ulm'").code == 2
