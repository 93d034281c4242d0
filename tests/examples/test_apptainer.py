"""The recipe of examples/apptainer: its sections, its shell lines, and the files it takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_RECIPE = _ROOT / "examples" / "apptainer" / "patchknn.def"
_SHELL = ("post", "environment", "test", "runscript")


def _sections():
    """``NAME: value`` lines before the first section, and the lines of each section."""
    header, sections = {}, {}
    lines = header_lines = []
    for line in _RECIPE.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"%([a-z]+)", line):
            assert found[1] not in sections
            lines = sections[found[1]] = []
        elif not line.startswith("#"):
            lines.append(line)
    for line in filter(str.strip, header_lines):
        name, value = re.fullmatch(r"(\w+): (\S+)", line).groups()
        header[name] = value
    return header, sections


def test_it_has_the_sections_that_apptainer_knows():
    header, sections = _sections()
    assert header == {"Bootstrap": "docker", "From": "python:3.11-slim"}
    assert set(sections) == {*_SHELL, "files", "help"}
    assert [line.strip() for line in sections["test"] if line] == ["patchknn doctor"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="pip install '.[test]' brings it")
@pytest.mark.parametrize("name", _SHELL)
def test_its_shell_lines_parse_and_shellcheck_has_nothing_to_say(name, tmp_path):
    script = tmp_path / name
    script.write_text("#!/bin/sh\n" + "\n".join(_sections()[1][name]) + "\n")
    subprocess.run(["bash", "-n", str(script)], check=True)
    checked = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_files_it_takes_are_enough_to_build_patchknn(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for line in filter(str.strip, _sections()[1]["files"]):
        source, target = line.split()
        place = tmp_path / target.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (_ROOT / source).is_dir():
            shutil.copytree(_ROOT / source, place, ignore=shutil.ignore_patterns("*.so"))
        else:
            shutil.copy(_ROOT / source, place)
    program = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    built = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "opt" / "patchknn",
        env={"PATH": "", "CC": "/bin/false"},  # the kernels are another test's
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "opt" / "patchknn").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        f"patchknn/{p.relative_to(_ROOT / 'patchknn')}" for p in (_ROOT / "patchknn").rglob("*.py")
    }
    assert sources <= names
