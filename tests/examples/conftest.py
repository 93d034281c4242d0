"""What the tests of examples share: the commands that scripts call, slides, and an archive."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from slurm_standin import Cluster  # noqa: E402

PIXELS = 64
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A PATH with this installation's patchknn."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "patchknn").write_text(f'#!/bin/sh\nexec {sys.executable} -m patchknn "$@"\n')
    (folder / "patchknn").chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "MPP": "1.0",
    }


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    """``run(command, argument, cwd=folder)``: what it printed; it ends with ``code``."""

    def call(
        *words: object, cwd: Path, code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        finished = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env={**environment, **variables},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == code, finished.stderr
        return finished

    return call


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Two slides, and an encoder fitted on their tiles."""
    folder = tmp_path_factory.mktemp("project")

    def patchknn(*words: object) -> None:
        run("patchknn", *words, cwd=folder)

    patchknn("simulate", "slides", "slides", "--slides", 2, "--patients", 2, "--size-px", 768)
    patchknn("tile", "slides/slides.csv", "-o", "tiles", "--size", PIXELS, "--mpp", 1)
    patchknn(
        *("train", "tiles", "-o", "encoder", "--backbone", "test_resnet"),
        *("--loss", "none", "--size", PIXELS, "--bits", 16),
    )
    return folder


@pytest.fixture(scope="session")
def archive(project: Path, run: Run) -> Path:
    """The tiles embedded by one process."""
    run("patchknn", "embed", "tiles", "--encoder", "encoder", "--archive", "archive", cwd=project)
    return project / "archive"


@pytest.fixture
def scripts(request: pytest.FixtureRequest) -> Path:
    """The folder of examples that a folder of tests is about: it has the same name."""
    return HERE.parents[1] / "examples" / request.path.parent.name


@pytest.fixture
def module(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """One of them by its name, as its neighbours import it."""
    monkeypatch.syspath_prepend(scripts)
    return importlib.import_module


@pytest.fixture
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    """A Slurm of one node; what it runs ends with the test."""
    with Cluster(tmp_path / "slurm", environment) as running:
        yield running
