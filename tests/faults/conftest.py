"""What the tests of faults share: archives to be harmed, and the process that forks children."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import forks  # noqa: E402
import small_archives  # noqa: E402


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is asked to take long may take long."""
    if config.getoption("--long-faults"):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.timeout(2 * 3600), append=False)


@pytest.fixture
def long_faults(request: pytest.FixtureRequest) -> bool:
    """Whether --long-faults was given."""
    return bool(request.config.getoption("--long-faults"))


@pytest.fixture(scope="module")
def children() -> Iterator[forks.Forker]:
    """Tasks in children of their own: ``children.ask("operate", {…})``."""
    with forks.Forker(HERE / "children.py") as forker:
        yield forker


@pytest.fixture(scope="session")
def encoding_children() -> Iterator[forks.Forker]:
    """The same where torch and timm are imported too: that takes seconds, once for all tests."""
    with forks.Forker(HERE / "children.py", "--torch") as forker:
        yield forker


@pytest.fixture
def children_for(request: pytest.FixtureRequest) -> Callable[[str], forks.Forker]:
    """``children_for("add")``: those that can do it; without torch a fork takes a quarter."""

    def able(name: str) -> forks.Forker:
        torch = name.startswith("embed")
        forker: forks.Forker = request.getfixturevalue("encoding_children" if torch else "children")
        return forker

    return able


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: no kill asks what had reached the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="patchknn-faults-", dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a used archive, to be copied and never changed, and of an ``other`` one."""
    made = tmp_path_factory.mktemp("worn")
    small_archives.worn_archive(made)
    (made / "other").mkdir()
    small_archives.other_archive(made / "other")
    return made


@pytest.fixture
def other(worn: Path) -> Path:
    """The archive that is merged into others."""
    return worn / "other" / "archive"


@pytest.fixture
def copied(worn: Path, folder: Path) -> Callable[[], Path]:
    """A fresh copy of the archive ``worn`` in the place of the one before."""

    def copy() -> Path:
        place = folder / "copy"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return shutil.copytree(worn / "archive", place / "archive", symlinks=True)

    return copy


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Counter[str]]:
    """Counts that are shown below the results, where there is room: ``tally["rounds"] += 1``."""
    counts: Counter[str] = Counter()
    yield counts
    record_property("counts", dict(counts))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was counted."""
    reports = [r for some in terminalreporter.stats.values() for r in some]
    for report in reports:
        for name, counts in getattr(report, "user_properties", ()):
            if name == "counts" and counts and report.when == "teardown":
                told = ", ".join(f"{what} {count}" for what, count in counts.items())
                terminalreporter.write_line(f"{report.nodeid}: {told}")
