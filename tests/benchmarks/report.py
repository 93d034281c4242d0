"""What was measured: one object each, as a table, and as lines of JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from timing import Timed

_PACKAGES = ("numpy", "faiss-cpu", "hnswlib", "usearch", "annoy", "scikit-learn", "scipy")


@dataclass(frozen=True)
class Measurement:
    """One line of ``--json``; ``mode`` is one, batch, process, open or build."""

    case: str
    n: int
    bits: int
    radius: int | None
    mode: str
    method: str
    exact: bool
    recall: float | None
    us_per_query: float
    bytes_per_row: float | None


@dataclass(frozen=True)
class Setting:
    """What several measurements have in common."""

    case: str
    n: int
    bits: int
    radius: int | None
    mode: str


class Log:
    """All measurements of a run, in order; each is shown as soon as it is made."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []
        self.rounds: dict[tuple[Setting, str], Timed] = {}
        self.facts: dict[str, float] = {}  # what is no time per query, by name

    def add(self, setting: Setting, timed: Iterable[Timed]) -> None:
        """Note what took turns in one setting."""
        say(f"\n{heading(setting)}")
        for one in sorted(timed, key=lambda timed: timed.us):
            contender = one.contender
            # Without what it ran: that holds all of its data in memory, beside those to come.
            self.rounds[setting, contender.method] = Timed(
                replace(contender, run=_done), one.rounds
            )
            self.measurements.append(
                Measurement(
                    **asdict(setting),
                    method=contender.method,
                    exact=contender.exact,
                    recall=None if contender.recall is None else round(contender.recall, 4),
                    us_per_query=round(one.us, 3),
                    bytes_per_row=None
                    if contender.bytes_per_row is None
                    else round(contender.bytes_per_row, 1),
                )
            )
            say(f"  {_line(self.measurements[-1])}")

    def note(self, setting: Setting, method: str, us: float, bytes_per_row: float) -> None:
        """Add one line that took no turns."""
        one = Measurement(
            **asdict(setting),
            method=method,
            exact=True,
            recall=None,
            us_per_query=round(us, 3),
            bytes_per_row=round(bytes_per_row, 1),
        )
        self.measurements.append(one)

    def found(self, setting: Setting) -> dict[str, Timed]:
        """What was measured in a setting, by method."""
        return {method: timed for (where, method), timed in self.rounds.items() if where == setting}

    def write(self, file: Path) -> None:
        """One JSON object per measurement and line."""
        file.write_text("".join(json.dumps(asdict(one)) + "\n" for one in self.measurements))

    def write_facts(self, file: Path) -> None:
        """One JSON object of all figures."""
        file.write_text(json.dumps(self.facts, indent=1) + "\n")


def _done(_count: int) -> None:
    """In place of what was measured."""


def say(text: str) -> None:
    """To stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def heading(setting: Setting) -> str:
    """A setting in words."""
    radius = "" if setting.radius is None else f", r = {setting.radius}"
    return f"{setting.case}: n = {setting.n:,}, K = {setting.bits}{radius}, {setting.mode}"


def table(measurements: Sequence[Measurement]) -> str:
    """All in one Markdown table."""
    lines = [
        "| case | n | K | r | mode | method | recall | µs per query | bytes per row |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in measurements:
        recall = "–" if one.recall is None else f"{one.recall:.3f}" + ("" if one.exact else " ~")
        size = "–" if one.bytes_per_row is None else f"{one.bytes_per_row:.0f}"
        radius = "–" if one.radius is None else str(one.radius)
        lines.append(
            f"| {one.case} | {one.n:.0e} | {one.bits} | {radius} | {one.mode} | {one.method} "
            f"| {recall} | {one.us_per_query:,.1f} | {size} |"
        )
    return "\n".join(lines)


def environment(threads: int, packages: Sequence[str] = _PACKAGES) -> str:
    """CPU, cores, kernels and versions in one line."""
    try:
        from patchknn.hamming.kernels import chosen

        kernels = chosen()
    except ImportError:
        kernels = "numpy"
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"{_cpu()}, {os.cpu_count()} cores, {threads} threads, kernels {kernels}, Python "
        f"{platform.python_version()}, {', '.join(versions)}, load {os.getloadavg()[0]:.1f}"
    )


def _line(one: Measurement) -> str:
    notes = [] if one.recall is None else [f"recall {one.recall:.3f}"]
    if not one.exact:
        notes.append("approximate")
    if one.bytes_per_row is not None:
        notes.append(f"{one.bytes_per_row:.0f} bytes a row")
    return f"{one.us_per_query:>14,.2f} µs  {one.method}  {', '.join(notes)}".rstrip()


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
