"""What the console makes of rows."""

from __future__ import annotations

from datetime import datetime

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


def test_a_line_of_a_jobs_log_says_whose_it_is(capsys, monkeypatch):
    console.log("a.svs: done.")
    console.message("hello")
    assert capsys.readouterr().err == "hello\n"
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURMD_NODENAME", "node12")
    console.log("a.svs: done.")
    console.fail("b.svs is bad.")
    lines = capsys.readouterr().err.splitlines()
    heads = [line.partition("] ")[0].split() for line in lines]
    assert [head[1:] for head in heads] == [["node12", "7_3"]] * 2
    for head in heads:
        datetime.strptime(head[0], "[%Y-%m-%dT%H:%M:%S")
    assert [line.partition("] ")[2] for line in lines] == [
        "a.svs: done.",
        "patchknn: b.svs is bad.",
    ]
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "2")
    console.message("hello")
    assert " 7_3.2] hello" in capsys.readouterr().err


NAMES = [f"recall, colour-histogram {number}" for number in range(9)]


def test_a_table_in_a_file_is_as_wide_as_it_needs_to_be(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console.print_table(["class", *NAMES], [["epithelial tissue", *[0.51234] * 9]], title="All")
    title, _, header, _, row, _ = capsys.readouterr().out.splitlines()
    assert title.strip() == "All"
    assert all(name in header for name in NAMES)
    assert row.split() == ["epithelial", "tissue", *["0.5123"] * 9]


def test_names_fold_in_a_narrow_table_and_numbers_do_not(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    console.print_table(["class", *NAMES[:4]], [["epithelial tissue", *[0.51234] * 4]])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    letters = "".join(lines)
    for letter in set("recall,colour-histogram"):
        assert letters.count(letter) >= 4 * "recall,colour-histogram".count(letter)
    assert sum(line.count("0.5123") for line in lines) == 4
