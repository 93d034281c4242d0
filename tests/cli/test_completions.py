"""The completion scripts are those of the present command line, and Tab does not wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[2] / "completions"
_SCRIPTS = {"bash": "patchknn.bash", "zsh": "_patchknn", "fish": "patchknn.fish"}


@pytest.mark.parametrize("shell", _SCRIPTS)
def test_script_is_up_to_date(shell):
    variables = {**os.environ, "_PATCHKNN_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-m", "patchknn"]
    finished = subprocess.run(command, capture_output=True, text=True, env=variables)
    written = (_FOLDER / _SCRIPTS[shell]).read_text(encoding="utf-8")
    remedy = f"_PATCHKNN_COMPLETE=source_{shell} patchknn > completions/{_SCRIPTS[shell]}"
    assert written.strip() == finished.stdout.strip(), f"regenerate: {remedy}"


@pytest.mark.parametrize(
    ("shell", "settings"),
    [
        ("bash", {"COMP_WORDS": "patchknn doctor --fo", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "patchknn doctor --fo"}),
        (
            "fish",
            {
                "_TYPER_COMPLETE_ARGS": "patchknn doctor --fo",
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            },
        ),
    ],
)
def test_tab_completes_an_option_without_heavy_imports(shell, settings):
    program = """
import sys
from patchknn.cli.main import run
try:
    run([])
finally:
    heavy = {name for name in ("torch", "numpy", "zarr", "rich") if sys.modules.get(name)}
    print(sorted(heavy), file=sys.stderr)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **settings, "_PATCHKNN_COMPLETE": f"complete_{shell}"},
    )
    assert "--format" in finished.stdout
    assert finished.stderr.strip() == "[]"
