"""What an installation holds: the kernels' sources travel, and nothing depends on a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap

_ROOT = Path(__file__).resolve().parents[1]
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build an "sdist" or a "wheel" of a copy of these sources, offline; the file."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("packaging")

    def make(kind: str, **variables: str) -> Path:
        source, out = folder / f"{kind}-source", folder / kind
        ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
        shutil.copytree(_ROOT / "patchknn", source / "patchknn", ignore=ignored)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(_ROOT / name, source)
        out.mkdir()
        program = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
        finished = subprocess.run(
            [sys.executable, "-c", program],
            cwd=source,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )
        assert finished.returncode == 0, finished.stderr
        (file,) = out.iterdir()
        return file

    return make


def test_a_source_distribution_holds_all_that_the_kernels_include(build):
    with tarfile.open(build("sdist")) as packed:
        held = {Path(name).name for name in packed.getnames()}
    sources = sorted((_ROOT / "patchknn" / "hamming").glob("_kernels*.[ch]"))
    assert sources
    for source in sources:
        assert source.name in held, f"{source.name} is missing: is it named in pyproject.toml?"
        assert set(_INCLUDE.findall(source.read_text(encoding="utf-8"))) <= held


def test_without_a_compiler_it_installs_and_answers_alike(build, tmp_path):
    installed = tmp_path / "installed"
    with zipfile.ZipFile(build("wheel", CC="/bin/false")) as wheel:
        names = [Path(name) for name in wheel.namelist() if name.startswith("patchknn/")]
        page = {name.name for name in names if name.parent.name == "templates"}
        assert page == {"page.html.j2", "gallery.html.j2", "page.css", "page.js"}
        assert {name.suffix for name in names if name.parent.name != "templates"} == {".py"}
        wheel.extractall(installed)
    archive, encoder = tmp_path / "archive", tmp_path / "encoder"
    _write_archive(archive, encoder)
    line = ["query", str(archive), "--id", *[f"i{number}" for number in range(20)]]
    answers = []
    program = "import patchknn.cli.main as main, sys; sys.stderr.write(main.__file__); main.entry()"
    inherited = {key: value for key, value in os.environ.items() if key != "PATCHKNN_KERNELS"}
    for variables in ({}, {"PYTHONPATH": str(installed)}):
        finished = subprocess.run(
            [sys.executable, "-c", program, *line],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**inherited, **variables},
        )
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr.startswith(str(installed)) == ("PYTHONPATH" in variables)
        answers.append(finished.stdout)
    assert len(answers[0].splitlines()) == 20
    assert answers[0] == answers[1]


def _write_archive(archive: Path, encoder: Path) -> None:
    rng = np.random.default_rng(5)
    n, dim, bits = 60, 12, 16
    description = EncoderDescription(dim, bits, "sign")
    write_bundle(encoder, description, LinearMap(rng.normal(size=(bits, dim)), np.zeros(bits)))
    bundle = load_bundle(encoder)
    create_archive(archive, bundle, patch_px=32, mpp=None)
    features = rng.normal(size=(n, dim)).astype(np.float16)
    rows = Rows(
        features,
        bundle.codes(features),
        np.full((n, 2), -1),
        np.arange(n, dtype=np.int32),
        np.full(n, -1, np.int32),
        tuple(Source(f"i{i}", f"/gone/i{i}", 1, 0, i.to_bytes(16, "little")) for i in range(n)),
        (),
    )
    with ArchiveWriter(archive) as writer:
        writer.add(rows)
        writer.publish()
