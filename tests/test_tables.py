"""CSV, TSV and Parquet as people and spreadsheets write them."""

from __future__ import annotations

import csv
import io

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchknn.cli import console
from patchknn.errors import InputError
from patchknn.tables import read_table


def _read(tmp_path, name, data, **options):
    file = tmp_path / name
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_table(file, **options)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", "path,label\na.png,TUM\nb c.png,\n"),
        ("a.CSV", "\ufeffpath,label\r\na.png,TUM\r\nb c.png,\r\n"),
        ("a.csv", " path , label\n a.png ,TUM \n'b c.png',\n".replace("'", '"')),
        ("a.csv", "path,label\n\na.png,TUM\n , \nb c.png\n\n"),
        ("a.csv", "path,label,,\na.png,TUM,,\nb c.png,,,\n"),
        ("a.csv", ",path,label\n0,a.png,TUM\n1,b c.png,\n"),
        ("a.csv", "path,label\ra.png,TUM\rb c.png,\r"),
        ("a.tsv", "path\tlabel\na.png\tTUM\nb c.png\t\n"),
        ("a.tsv", '"path"\t"label"\n"a.png"\t"TUM"\n"b c.png"\t\n'),
    ],
)
def test_every_way_of_writing_it_gives_the_same_rows(tmp_path, name, data):
    table = _read(tmp_path, name, data)
    assert table.columns == ("path", "label")
    assert table.rows == ({"path": "a.png", "label": "TUM"}, {"path": "b c.png", "label": None})


def test_parquet_gives_the_same_rows(tmp_path):
    file = tmp_path / "a.parquet"
    duckdb.sql(
        "COPY (SELECT * FROM (VALUES ('a.png', 'TUM', 3, 0.25::DOUBLE), ('b c.png', NULL, 4, NULL))"
        f" AS t(path, label, x, mpp)) TO '{file}'"
    )
    table = read_table(file, required=("path", "label"))
    assert table.columns == ("path", "label", "x", "mpp")
    assert table.rows[1] == {"path": "b c.png", "label": None, "x": "4", "mpp": None}
    assert table.numbers("mpp") == [0.25, None]


# Line ends and tabs become blanks, blanks at the ends are trimmed, an empty cell is None.
_CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_CELLS, _CELLS, _CELLS), max_size=6))
def test_what_the_command_line_writes_as_tsv_is_read_back(rows, tmp_path, monkeypatch):
    written = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", written)
        lines = [dict(zip("abc", row, strict=True)) for row in rows]
        console.write_rows(lines, ("a", "b", "c"), "tsv")
    expected = [tuple(cell.strip() or None for cell in row) for row in rows]
    table = _read(tmp_path, "a.tsv", written.getvalue())
    assert [tuple(row.values()) for row in table.rows] == [row for row in expected if any(row)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_CELLS, _CELLS), max_size=6), suffix=st.sampled_from(["csv", "tsv"]))
def test_what_python_s_csv_module_writes_is_read_back(rows, suffix, tmp_path):
    written = io.StringIO()
    writer = csv.writer(written, delimiter="," if suffix == "csv" else "\t")
    writer.writerows([("a", "b"), *rows])
    expected = [tuple(cell.strip() or None for cell in row) for row in rows]
    table = _read(tmp_path, f"a.{suffix}", written.getvalue())
    assert [tuple(row.values()) for row in table.rows] == [row for row in expected if any(row)]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.txt", "path\n", "its name must end in .csv, .tsv, .parquet"),
        ("a.csv", "", "has no column 'path': it has none"),
        ("a.csv", "paht,label\n", "has no column 'path': it has paht, label; rename 'paht'?"),
        ("a.csv", "path\na,b\n", "line 2: 2 cells under 1 column names"),
        ("a.csv", "path,label,path\n", "has the column 'path' twice"),
        ("a.csv", 'path\n"a\n', "is not a readable table"),
        ("a.csv", "path\na\0b\n", "line 2: a cell holds a zero byte"),
        ("a.csv", "path\nä\n".encode("latin-1"), "save it as UTF-8"),
        ("a.csv", "path\nä\n".encode("utf-16"), "save it as UTF-8"),
        ("a.parquet", b"PAR1", "is not a readable Parquet file"),
        ("a.parquet", b"", "is not a readable Parquet file"),
        ("e.csv", "slide;label\na;TUM\n", "separated by semicolons: save it as a .csv with commas"),
        ("e.csv", "slide\tlabel\na\tTUM\n", "separated by tabs"),
        ("e.tsv", "slide,label\na,TUM\n", "separated by commas"),
    ],
)
def test_what_is_no_such_table_is_refused_by_name(tmp_path, name, data, sentence):
    with pytest.raises(InputError) as error:
        _read(tmp_path, name, data, required=["path"])
    assert sentence in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv does not exist"):
        read_table(tmp_path / "no.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        read_table(tmp_path / "folder.csv")


def test_numbers_name_the_line_where_there_is_none(tmp_path):
    table = _read(tmp_path, "a.csv", "x,y\n1,\n\n 2.5 ,0\n-1e2,1\n")
    assert table.numbers("x") == [1.0, 2.5, -100.0]
    assert table.numbers("y") == [None, 0.0, 1.0]
    assert table.numbers("absent") == [None] * 3
    assert table.lines == (2, 4, 5)
    for text in ("abc", "nan", "inf", "1e999", "0x10"):
        table = _read(tmp_path, "b.csv", f"x\n1\n\n{text}\n")
        with pytest.raises(InputError, match=rf"b\.csv, line 4: x is '{text}', not a number"):
            table.numbers("x")
