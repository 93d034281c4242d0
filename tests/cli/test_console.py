"""What the console makes of rows."""

from __future__ import annotations

from patchknn.cli import console


def test_one_long_row_is_a_table_of_names_and_values(capsys):
    columns = tuple("abcdefgh")
    row = {name: name * 12 for name in columns} | {"c": None, "d": 0}
    console.write_rows([row], columns, "table")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["a", "a" * 12] in lines
    assert ["d", "0"] in lines
    assert "c" not in {line[0] for line in lines}
    console.write_rows([row, row], columns, "table")
    assert columns == tuple(capsys.readouterr().out.split()[:8])
