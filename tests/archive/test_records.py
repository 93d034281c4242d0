"""Attached tables: what types they get, what may be asked of them, and what may not."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import duckdb
import pytest

from patchknn.archive import records_attach
from patchknn.archive.choice import Choice, chosen_rows
from patchknn.archive.collect import collect_garbage
from patchknn.archive.records import open_records, records_file
from patchknn.archive.records_attach import attach_records, detach_records
from patchknn.archive.records_forget import without_keys
from patchknn.archive.records_where import SourceFilter
from patchknn.archive.remove import remove_rows
from patchknn.archive.rollback import roll_back
from patchknn.archive.rows import Rows
from patchknn.archive.snapshot import open_archive
from patchknn.archive.strings import StringTable, pack_strings
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import ConflictError, DamageError, InputError, UsageError

SLIDES = ["s1.svs", "s2.svs", "t1", "t2"]  # those of the fixture, beside four plain images


def attach(archive, text, key="slide", name="table.csv", **more):
    file = archive.parent / name
    file.write_text(text, encoding="utf-8", newline="")
    return attach_records(archive, file, key, **more)


def opened(archive):
    return open_records(archive, open_archive(archive).manifest.records)


def column(archive, field):
    """The type of a field, and its values by key."""
    with opened(archive) as records:
        found = records.field(field, "test")
        sql = f'SELECT {found.key}, "{found.name}" FROM records_{found.number}'
        return found.type, dict(records.connection.execute(sql).fetchall())


def admitted(archive, where):
    """The names of the sources that an expression admits, by way of the masks."""
    snapshot = open_archive(archive)
    source_filter = SourceFilter(snapshot, where)
    return {
        name
        for shard in snapshot.shards
        for name, is_meant in zip(shard.source_names, source_filter(shard), strict=True)
        if is_meant
    }


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["2015", "-3", ""], "BIGINT", [2015, -3, None]),
        (["1.5", "NaN", "3e-05"], "DOUBLE", [1.5, None, 3e-05]),
        (["true", "FALSE", ""], "BOOLEAN", [True, False, None]),
        (["F", "F", "F"], "VARCHAR", ["F", "F", "F"]),  # is the sex of a slide, not false
        (["007", "12", "3"], "VARCHAR", ["007", "12", "3"]),
        (["12345678901234567890", "1", "2"], "VARCHAR", ["12345678901234567890", "1", "2"]),
        (["01/02/2015", "13/02/2015", ""], "VARCHAR", ["01/02/2015", "13/02/2015", None]),
        (["24:00", "9:05", ""], "VARCHAR", ["24:00", "9:05", None]),
        (["NA", "1", "2"], "VARCHAR", ["NA", "1", "2"]),
        (
            ["[red]x[/red]", "o'b", '"a ""b"", c\nd"'],
            "VARCHAR",
            ["[red]x[/red]", "o'b", 'a "b", c\nd'],
        ),
        (["", "", ""], "VARCHAR", [None, None, None]),
    ],
)
def test_text_gets_the_types_that_it_can_only_mean(archive, cells, kind, values):
    lines = [f"{slide},{cell},x" for slide, cell in zip(SLIDES[:3], cells, strict=True)]
    attach(archive, "\n".join(["slide,f,other", *lines]))
    assert column(archive, "f") == (kind, dict(zip(SLIDES[:3], values, strict=True)))


def test_dates_and_times_are_those_of_iso_8601(archive):
    attach(archive, "slide,day,at,time\ns1.svs,2015-02-01,2015-02-01T10:30:00,9:05\n")
    assert [column(archive, f)[0] for f in ("day", "at", "time")] == ["DATE", "TIMESTAMP", "TIME"]
    with opened(archive) as records:
        found = records.values(0, ["day", "at", "time"], ["s1.svs", "no", "\udcff"])
    assert found == {
        "s1.svs": {"day": "2015-02-01", "at": "2015-02-01 10:30:00", "time": "09:05:00"}
    }


def test_cells_that_are_said_to_be_missing_are_empty(archive):
    attach(archive, "slide,year\ns1.svs,NA\ns2.svs,2015\n-,1\n", missing=["NA", "-"])
    assert column(archive, "year") == ("BIGINT", {"s1.svs": None, "s2.svs": 2015})


def test_keys_stay_text_whatever_they_look_like(archive):
    attach(archive, "PATIENT,sex\n12,F\n7,M\n", key="patient")
    assert column(archive, "sex")[1] == {"12": "F", "7": "M"}


def test_parquet_keeps_its_types_where_they_are_plain(archive, tmp_path):
    file = tmp_path / "a[1].parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT 12.0::DOUBLE AS patient, 3::TINYINT AS small, 'nan'::DOUBLE "
            "AS nan, 1.25::DECIMAL(5, 2) AS price, TIMESTAMPTZ '2015-01-01 02:00:00+02' AS moment, "
            "'' AS blank, 'inf'::DOUBLE AS endless"
        )
        connection.execute(f"COPY t TO '{file}'")
        connection.execute(f"COPY (SELECT 'P0' AS patient, [1] AS tags) TO '{tmp_path}/l.parquet'")
    report = attach_records(archive, file, "patient")
    assert report.unknown == ("12",)
    assert column(archive, "small") == ("BIGINT", {"12": 3})
    assert column(archive, "nan") == ("DOUBLE", {"12": None})
    assert column(archive, "price") == ("DOUBLE", {"12": 1.25})
    assert str(column(archive, "moment")[1]["12"]) == "2015-01-01 00:00:00"
    assert column(archive, "blank")[1] == {"12": None}
    with opened(archive) as records:
        assert records.values(0, ["endless"], ["12"]) == {"12": {"endless": "inf"}}
    with pytest.raises(InputError, match=r"column 'tags' is of type INTEGER\[\]"):
        attach_records(archive, tmp_path / "l.parquet", "patient")


def test_a_folder_with_the_signs_of_a_pattern_is_a_folder(archive, tmp_path):
    odd = tmp_path / "site=A [1]*"
    odd.mkdir()
    archive = archive.rename(odd / "archive")
    attach(archive, "slide,organ\ns1.svs,colon\n")
    assert [field.name for field in opened(archive).fields] == ["organ"]
    assert admitted(archive, "organ = 'colon'") == {"s1.svs"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,organ\ns1.svs,x\n", "no column 'slide': it has name, organ; rename the one"),
        ("slide\ns1.svs\n", "no column beside slide"),
        ("slide,patient\ns1.svs,P0\n", "no column beside slide, patient"),
        ("slide,a\ns1.svs,1\ns1.svs,2\ns1.svs,1\n", "differ for the slide 's1.svs': keep one"),
        ("slide,a,A\ns1.svs,1,2\n", "the column 'A' twice"),
        ("slide,a\ns1.svs,1,2\n", "line 2: 3 cells under 2 column names"),
    ],
)
def test_what_cannot_be_records_is_refused_in_a_sentence(archive, text, sentence):
    with pytest.raises(InputError) as error:
        attach(archive, text)
    assert sentence in str(error.value)
    assert open_archive(archive).manifest.records == ()
    assert not list(archive.glob(".tmp-*"))


def test_five_differing_keys_are_named_in_part(archive):
    rows = [f"s{n},{value}" for n in range(5) for value in "ab"]
    with pytest.raises(InputError, match="'s0', 's1', 's2' and 2 more"):
        attach(archive, "\n".join(["slide,a", *rows]))


def test_what_is_of_no_use_is_counted(archive):
    remove_rows(archive, Choice(slides=["s2.svs"]))
    text = "slide,patient,organ\ns1.svs,X,a\ns1.svs,X,a\ns2.svs,X,b\nzz,X,c\n,,d\n"
    report = attach(archive, text)
    assert (report.rows, report.unknown, report.known) == (3, ("s2.svs", "zz"), None)
    assert (report.unkeyed, report.left_out, report.fields) == (1, ("patient",), ("organ",))
    report = attach(archive, "patient,sex\nX,F\n", key="patient", name="p.csv")
    assert (report.unknown, report.known) == (("X",), "P0")


def test_no_records_at_all(archive):
    report = attach(archive, "slide,organ\n")
    assert (report.rows, report.known) == (0, "a.png")
    assert admitted(archive, "organ IS NOT NULL") == set()
    assert len(admitted(archive, "organ IS NULL")) == 8
    with opened(archive) as records:
        (summary,) = records.summaries()
    assert (summary.filled, summary.distinct, summary.example) == (0, 0, None)


def test_the_same_again_changes_nothing_and_the_same_name_replaces(archive):
    first = attach(archive, "slide,organ\ns1.svs,colon\ns2.svs,lung\n")
    again = attach(archive, "slide,organ\ns2.svs,lung\ns1.svs,colon\n")
    assert (again.number, again.replaced) == (None, False)
    newer = attach(archive, "slide,organ,year\ns1.svs,liver,2015\n")
    assert (newer.number, newer.replaced) == (first.number + 1, True)
    assert column(archive, "organ")[1] == {"s1.svs": "liver"}
    roll_back(archive, first.number)
    assert column(archive, "organ")[1] == {"s1.svs": "colon", "s2.svs": "lung"}
    assert verify_archive(archive) == []


def test_one_field_in_two_tables_is_refused_by_both_names(archive):
    attach(archive, "slide,Organ\ns1.svs,colon\n", name="one.csv")
    with pytest.raises(ConflictError, match=r"one.csv has a field 'Organ' already, so two.csv"):
        attach(archive, "patient,organ\nP0,colon\n", key="patient", name="two.csv")


def test_detach_keeps_earlier_snapshots_until_gc(archive):
    attach(archive, "slide,organ\ns1.svs,colon\n")
    (entry,) = open_archive(archive).manifest.records
    with pytest.raises(UsageError, match=r"no records called 'x': it has table.csv"):
        detach_records(archive, "x")
    assert detach_records(archive, "table.csv", dry_run=True) is None
    detach_records(archive, "table.csv")
    assert open_archive(archive).manifest.records == ()
    collect_garbage(archive, older_than=0)
    assert records_file(archive, entry.sha256).exists()
    collect_garbage(archive, keep=1, older_than=0)
    assert not records_file(archive, entry.sha256).exists()


def test_a_table_attached_meanwhile_is_kept(archive, monkeypatch):
    known = records_attach._known

    def slow(snapshot, key):
        monkeypatch.setattr(records_attach, "_known", known)
        attach(archive, "slide,year\ns1.svs,2015\n", name="other.csv")
        return known(snapshot, key)

    monkeypatch.setattr(records_attach, "_known", slow)
    attach(archive, "slide,organ\ns1.svs,colon\n")
    assert {entry.name for entry in open_archive(archive).manifest.records} == {
        "other.csv",
        "table.csv",
    }
    assert admitted(archive, "organ = 'colon' AND year = 2015") == {"s1.svs"}


def test_the_same_table_attached_meanwhile_stays(archive, monkeypatch):
    known = records_attach._known
    text = "slide,organ\ns1.svs,colon\n"

    def slow(snapshot, key):
        # Once this one has its file in place, another process wins with the same.
        monkeypatch.setattr(records_attach, "_known", known)
        attach(archive, text)
        return known(snapshot, key)

    monkeypatch.setattr(records_attach, "_known", slow)
    assert attach(archive, text).number is None
    assert admitted(archive, "organ = 'colon'") == {"s1.svs"}
    assert not list(archive.glob(".tmp-*"))


def test_a_changed_or_missing_file_is_damage(archive):
    attach(archive, "slide,organ\ns1.svs,colon\n")
    (entry,) = open_archive(archive).manifest.records
    file = records_file(archive, entry.sha256)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamageError, match="its checksum is no longer its name"):
        opened(archive)
    (finding,) = verify_archive(archive)
    assert finding.file == f"records/{entry.sha256}.parquet"
    file.unlink()
    with pytest.raises(DamageError, match="No such file"):
        opened(archive)
    (finding,) = verify_archive(archive)
    assert "No such file" in finding.sentence


def test_expressions_mean_what_three_valued_logic_says(archive):
    generator = random.Random(3)
    names = [*SLIDES, "a.png", "b.png"]
    pick = generator.choice
    rows = {
        name: (pick(["colon", "o'b", "[b]", None]), pick([2013, 2015, 2017, None]))
        for name in names[:5]
    }
    lines = [f"{n},{o or ''},{'' if y is None else y},1" for n, (o, y) in rows.items()]
    attach(archive, "\n".join(["slide,organ,year,group", *lines]))
    attach(archive, "patient,sex\nP0,F\nP9,M\n", key="patient", name="p.csv")
    snapshot = open_archive(archive)
    sources = {source.name: source.patient for source in snapshot.sources()}
    cases = {
        "organ = 'colon' and year >= 2015": lambda o, y, s, p: o == "colon" and (y or 0) >= 2015,
        "organ <> 'colon'": lambda o, y, s, p: o not in {None, "colon"},
        "not (year > 2014)": lambda o, y, s, p: y is not None and y <= 2014,
        "organ = 'o''b' or year is null": lambda o, y, s, p: o == "o'b" or y is None,
        "year in (2013, 2017)": lambda o, y, s, p: y in {2013, 2017},
        "\"group\" = 1 and organ like '[%'": lambda o, y, s, p: o == "[b]",
        "sex = 'F'": lambda o, y, s, p: p == "P0",
        "slide = 's1.svs' or patient = 'P1'": lambda o, y, s, p: s == "s1.svs" or p == "P1",
        "patient is null": lambda o, y, s, p: p is None,
        "ORGAN IS NOT NULL -- ends here": lambda o, y, s, p: o is not None,
    }
    for where, means in cases.items():
        expected = {
            name
            for name, patient in sources.items()
            if means(*rows.get(name, (None, None)), name, patient)
        }
        assert admitted(archive, where) == expected, where
        rows_meant = chosen_rows(snapshot, Choice(where=SourceFilter(snapshot, where))).rows
        found = {
            shard.source_names[number]
            for shard in snapshot.shards
            for number in shard.source[rows_meant.get(shard.uuid, [])].tolist()
        }
        assert found == expected, where


def test_nan_is_not_above_everything(archive):
    attach(archive, "slide,score\ns1.svs,NaN\ns2.svs,2\n")
    assert admitted(archive, "score > 1") == {"s2.svs"}


HOSTILE = [
    "slide in (select content from read_text('{file}'))",
    "exists (select 1 from read_csv('/etc/passwd'))",
    "exists (from '{file}')",
    "exists (from secret)",
    "exists (values (1))",
    "read_csv('/etc/passwd') is null",
    "COPY given TO '{out}'",
    "true; COPY given TO '{out}'",
    "true); COPY (select 1) TO '{out}'; select (true",
    "true) union select 1 from read_csv('/etc/passwd') where (true",
    "true), check (true",
    "attach '{out}'",
    "install httpfs",
    "set enable_external_access = true",
    "max(year) = 2015",
    "row_number() over () = 1",
    "columns(*) is not null",
    "*",
    "true, true",
    "organ = ?",
    "organ = 'colon",
    "true /*",
    "year",
    "null",
    "",
    "organ = 3",
    "year = 'abc'",
    "organ = '\udcff'",
    "getenv('HOME') = ''",
]


@pytest.mark.parametrize("where", HOSTILE)
def test_anything_but_a_question_about_the_fields_is_refused(archive, tmp_path, where):
    file, out = tmp_path / "file.csv", tmp_path / "out"
    file.write_text("slide\ns1.svs\n")
    attach(archive, "slide,organ,year\ns1.svs,colon,2015\n")
    secret = {"slide": ["s1.svs"]}  # a variable that DuckDB would find
    where = where.format(file=file, out=out)
    with pytest.raises(UsageError) as error:
        SourceFilter(open_archive(archive), where)
    sentence = str(error.value)
    assert sentence.startswith(f"--where {where!r}" if where else "--where is blank")
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not out.exists()
    assert secret


def test_even_a_query_of_its_own_reaches_no_file(archive, tmp_path):
    file = tmp_path / "file.csv"
    file.write_text("slide\ns1.svs\n")
    attach(archive, "slide,organ\ns1.svs,colon\n")
    with opened(archive) as records:
        for sql in (
            f"SELECT * FROM read_csv('{file}')",
            f"SELECT * FROM '{file}'",
            f"COPY records_0 TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'new.db'}'",
            "SET enable_external_access = true",
            "SET lock_configuration = false",
            "INSTALL httpfs",
            "LOAD httpfs",
        ):
            with pytest.raises(duckdb.Error):
                records.connection.execute(sql)
    assert sorted(one.name for one in tmp_path.glob("*.csv")) == ["file.csv", "table.csv"]
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        ('organ = "colon"', "a text stands in single quotes: 'colon'."),
        ("orgam = 'colon'", "there is no field 'orgam'; perhaps 'organ' is meant."),
        ("zzzz = 1", "there is no field 'zzzz'; there are organ, order."),
        ("order = 1", 'stands in double quotes: "order".'),
        ("exists (select 1)", "it holds a subquery"),
    ],
)
def test_a_wrong_expression_is_told_what_would_be_right(archive, where, hint):
    attach(archive, "slide,organ,order\ns1.svs,colon,1\n")
    with pytest.raises(UsageError) as error:
        SourceFilter(open_archive(archive), where)
    assert hint in str(error.value)


def test_without_records_there_are_slide_and_patient(archive):
    assert admitted(archive, "slide like 's%' and patient = 'P0'") == {"s1.svs"}
    with pytest.raises(UsageError, match="no records are attached"):
        admitted(archive, "organ = 'colon'")


def test_a_shard_that_came_later_is_looked_at_too(archive, bundle, make_rows):
    attach(archive, "slide,organ\nlate.svs,colon\n")
    source_filter = SourceFilter(open_archive(archive), "organ = 'colon'")
    with ArchiveWriter(archive, format="hdf5") as writer:
        writer.add(make_rows(bundle, seed=5, images=[], slides=["late.svs", "x.svs"]))
        writer.publish()
    snapshot = open_archive(archive)
    choice = Choice(where=source_filter, slides=["t1"])  # a union, as of other options
    chosen = chosen_rows(snapshot, choice)
    assert len(chosen) == 10
    assert snapshot.shards[-1].uuid in chosen.rows


def test_a_name_that_is_no_utf8_is_asked_about_as_others(empty, bundle, make_rows):
    rows = make_rows(bundle, images=["x.png", "a.png"], slides=["s"])
    odd = rows.sources[0]._replace(name="\udcff.png", path="/data/\udcff.png")
    with ArchiveWriter(empty, format="hdf5") as writer:
        writer.add(Rows(**{**vars(rows), "sources": (odd, *rows.sources[1:])}))
        writer.publish()
    attach(empty, "slide,organ\na.png,colon\n")
    assert admitted(empty, "organ = 'colon'") == {"a.png"}
    assert admitted(empty, r"slide = '\udcff.png'") == {"\udcff.png"}


def test_names_are_joined_as_they_stand():
    table = StringTable(*pack_strings(["é", "", "b\0c", "\udcff"]))
    assert table.joined() == b"\xc3\xa9\0\0b c\0\xff"
    assert StringTable(*pack_strings([])).joined() == b""


def test_those_who_withdraw_are_taken_out_of_the_tables(archive):
    attach(archive, "slide,organ\ns1.svs,colon\ns2.svs,lung\n")
    attach(archive, "patient,sex\nP0,F\nP1,M\n", key="patient", name="p.csv")
    before = open_archive(archive).manifest.records
    written = []
    after = without_keys(archive, before, {"s1.svs"}, {"P7"}, written)
    assert after[1] == before[1]
    assert after[0].rows == 1
    (table,) = written
    table.rename()
    with open_records(archive, after) as records:
        found = records.connection.execute("SELECT slide, organ FROM records_0").fetchall()
    assert found == [("s2.svs", "lung")]
    assert b"s1.svs" not in records_file(archive, after[0].sha256).read_bytes()


def test_what_the_fields_hold_is_summarised(archive):
    lines = ["slide,organ,year", "s1.svs,lung,2015", "s2.svs,colon,2013", "t1,colon,", "t2,,2014"]
    attach(archive, "\n".join(lines))
    with opened(archive) as records:
        found = {summary.field: summary for summary in records.summaries()}
    organ, year = found["organ"], found["year"]
    assert (organ.filled, organ.distinct, organ.example) == (3, 2, "colon; lung")
    assert (year.filled, year.distinct, year.example) == (3, 3, "2013 to 2015")
    assert (year.table, year.key, year.type, year.rows) == ("table.csv", "slide", "BIGINT", 4)


def test_cells_are_not_taken_for_signs_of_a_csv_file(archive):
    rows = [("#1", "# 2"), ("b\rc", "d\r\n'e'"), ("s1.svs", "NULL"), ('"', "\\N;x|y")]
    file = archive.parent / "odd.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("slide", "note"), *rows])
    attach_records(archive, file, "slide")
    assert column(archive, "note") == ("VARCHAR", dict(rows))


def test_a_full_disk_is_told_and_leaves_nothing(archive, little_room):
    before = sorted(archive.rglob("*"))
    text, parquet = archive.parent / "table.csv", archive.parent / "table.parquet"
    text.write_text("slide,code\n" + "".join(f"s{n},{n**3}\n" for n in range(9000)))
    with duckdb.connect() as connection:
        connection.execute(f"COPY (FROM read_csv('{text}')) TO '{parquet}'")
    with little_room(4096), pytest.raises(OSError, match="File too large") as error:
        attach_records(archive, text, "slide")
    assert error.value.filename.endswith("given.csv")
    with little_room(4096), pytest.raises(OSError, match="File too large") as error:
        attach_records(archive, parquet, "slide")
    assert error.value.filename.endswith("records.parquet")
    assert sorted(archive.rglob("*")) == before


def test_a_failed_attachment_leaves_nothing(archive, tmp_path):
    before = sorted(archive.rglob("*"))
    for file in (Path("gone.csv"), Path("x.txt")):
        with pytest.raises(InputError):
            attach_records(archive, tmp_path / file, "slide")
    assert attach(archive, "slide,a\ns1.svs,1\n", dry_run=True).number is None
    assert sorted(archive.rglob("*")) == before
