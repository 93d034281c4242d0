"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

# Shared machines stall: what a test says must not hang on how long it takes.
hypothesis.settings.register_profile("patchknn", deadline=None)
hypothesis.settings.load_profile("patchknn")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that tests start must import what is installed, with its kernels, and not the sources
# that happen to lie in the folder they start in.
os.environ["PYTHONSAFEPATH"] = "1"
# The suite may run in a batch job itself, and is not to be taken for a task of it.
for _name in [name for name in os.environ if name.startswith("SLURM")]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What takes minutes is asked for."""
    parser.addoption(
        "--long-faults",
        action="store_true",
        help="kill, corrupt and write at once in tests/faults as often as a release needs it",
    )


@dataclass(frozen=True)
class Result:
    """What one command line gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def patchknn(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run ``patchknn ARGUMENTS…`` in this process: ``patchknn("query", archive, image)``."""
    from patchknn.cli.main import run

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def launch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``patchknn ARGUMENTS…`` in a folder as so many processes of torchrun, or as one alone.

    ``program`` is started instead of patchknn, where it is given.
    """
    strange = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "SLURM_", "TORCHELASTIC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}

    def launched(
        folder: Path,
        *arguments: object,
        processes: int = 2,
        program: tuple[str, ...] = ("-m", "patchknn"),
    ) -> subprocess.CompletedProcess[str]:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        several = [*launcher, str(processes)] if processes > 1 else []
        # Else torchrun takes --event for short for an option of its own.
        end = ["--"] if processes > 1 else []
        return subprocess.run(
            [sys.executable, *several, *program, *end, *map(str, arguments)],
            cwd=folder,
            env={**kept, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
        )

    return launched


@pytest.fixture
def little_room() -> Callable[[int], AbstractContextManager[None]]:
    """``with little_room(n):`` no file grows beyond n bytes; what writes on gets an OSError.

    As real as a full disk, which needs a file system of its own, and root.
    """

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images (``PATCHKNN_DATA``); tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PATCHKNN_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set PATCHKNN_DATA")
    return folder
