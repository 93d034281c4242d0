"""``archive info`` as a plain line and as typer reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchknn.cli import app, main
from patchknn.cli import archive as archive_commands
from patchknn.cli.archive_info import read_plain_info

_WORDS = st.one_of(
    st.sampled_from(["a", "é f", "5", "tsv", "ndjson", "", "-", "--"]),
    st.sampled_from(["--at", "--format", "--at=3", "--help", "-1", "xml"]),
)


@given(words=st.lists(_WORDS, max_size=5))
def test_what_is_read_without_typer_is_read_alike(words):
    arguments = ["archive", "info", *words]
    plain = read_plain_info(arguments, {})
    if plain is None:
        return
    asked: list[tuple[object, ...]] = []

    def note(*given: object) -> int:
        asked.append(given)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        for variable in ("PATCHKNN_CONFIG", "PATCHKNN_DEBUG"):
            patch.delenv(variable, raising=False)
        patch.setattr(archive_commands, "show_info", note)
        assert app.call(arguments, None) == 0
    assert asked == [tuple(plain)]


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("archive info", {}),
        ("archive info a b", {}),
        ("archive list a", {}),
        ("archive info a --at -1", {}),
        ("archive info a --format", {}),
        ("archive info a --help", {}),
        ("archive info a", {"PATCHKNN_ARCHIVE_INFO_AT": "3"}),
        ("archive info a", {"PATCHKNN_VERSION": "1"}),
        ("archive info a", {"_PATCHKNN_COMPLETE": "complete_bash"}),
    ],
)
def test_other_lines_are_left_to_typer(line, variables):
    assert read_plain_info(line.split(), variables) is None


def test_a_plain_line_is_read():
    line = ["archive", "info", "--at", "3", "a", "--format", "tsv"]
    assert read_plain_info(line, {"HOME": "/"}) == (Path("a"), 3, "tsv")


def test_it_needs_neither_typer_nor_numpy(patchknn, archive):
    program = f"""
import sys
sys.modules["typer"] = sys.modules["numpy"] = None
from patchknn.cli.main import run
assert run(["archive", "info", {str(archive)!r}, "--format", "ndjson"]) == 0
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == patchknn("archive", "info", archive).out


def test_a_settings_file_holds_for_it_too(capsys, archive, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text('[archive.info]\nformat = "tsv"\n')
    assert main.run(["archive", "info", str(archive), "--config", str(config)]) == 0
    assert capsys.readouterr().out.startswith("what\tvalue\n")
