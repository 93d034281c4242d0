"""A plain query line means the same whether typer reads it or not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.cli import app, main, query_run
from patchknn.cli.query_plain import read_plain

_WORDS = st.one_of(
    st.sampled_from(["a", "b.npy", "s1.svs@0_0", "é f", "5", "self", "tsv", "", "-", "--"]),
    st.sampled_from(["--id", "--label", "--labelled", "--k", "--radius", "--max-radius"]),
    st.sampled_from(["--format", "--exclude-same", "--k=3", "--patient", "-1", "--help", "xml"]),
    st.sampled_from(["--explain", "--explain=1", "--no-explain"]),
)


def _asked_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    asked: list[tuple[object, ...]] = []

    def note(*arguments: object) -> int:
        asked.append(arguments)
        return 0

    monkeypatch.setattr(query_run, "run_query", note)
    return asked


@pytest.mark.parametrize(
    "line",
    [
        "a b.npy c",
        "a --id s1.svs@0_0 s2",
        "a --id x --id y --k 5 --k 7 --radius 0 --max-radius 12 --format tsv",
        "--labelled a b --label A --label B --exclude-same patient --format table",
        "a b.npy --explain",
        "--explain a --id x --labelled --explain --format ndjson",
        "a --id x --explain --format tsv",  # refused, but by what the search may be told
        "a --k 0",  # wrong, but by what the search may be told
    ],
)
def test_plain_lines_are_read_without_typer_and_alike(monkeypatch, line):
    arguments = ["query", *line.split()]
    asked = _asked_of(monkeypatch)
    plain = read_plain(arguments, {})
    assert plain is not None
    if "--k 0" in line:
        assert main.run(arguments) == 2
        return
    assert query_run.run_plain(plain) == app.call(arguments, None) == 0
    assert asked[0] == asked[1]


@given(words=st.lists(_WORDS, max_size=7))
def test_what_is_read_without_typer_is_read_alike(words):
    arguments = ["query", *words]
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("PATCHKNN_CONFIG", "PATCHKNN_DEBUG"):
            patch.delenv(variable, raising=False)
        plain = read_plain(arguments, {})
        if plain is None:
            return
        asked = _asked_of(patch)
        assert query_run.run_plain(plain) == app.call(arguments, None) == 0
        assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("query", {}),
        ("query --id x", {}),
        ("evaluate a b", {}),
        ("query a -o f b", {}),
        ("query a --id -", {}),
        ("query a --help", {}),
        ("query a --k 1e3", {}),
        ("query a b", {"PATCHKNN_QUERY_K": "3"}),
        ("query a b", {"PATCHKNN_VERSION": "1"}),
        ("query a b", {"_PATCHKNN_COMPLETE": "complete_bash"}),
    ],
)
def test_other_lines_are_left_to_typer(line, variables):
    assert read_plain(line.split(), variables) is None


def test_variables_of_other_meaning_leave_a_line_plain():
    variables = {"PATCHKNN_KERNELS": "numpy", "PATCHKNN_EMBED_SIZE": "96", "HOME": "/"}
    assert read_plain(["query", "a", "b"], variables) is not None


def test_settings_from_a_file_hold_for_plain_lines_too(monkeypatch, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("[query]\nk = 3\n")
    asked = _asked_of(monkeypatch)
    assert main.run(["query", "a", "b.npy", "--config", str(config)]) == 0
    assert asked[0][3].k == 3


def test_a_plain_line_needs_no_typer():
    program = """
import sys
sys.modules["typer"] = None
from patchknn.cli.main import run
assert run(["query", "no-such-archive", "--id", "x"]) == 1
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.startswith("patchknn: no-such-archive")
