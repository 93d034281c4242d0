"""How far a run is: its units done, running, failed and pending, from records and claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchknn.errors import InputError
from patchknn.jobs.claims import living_owners
from patchknn.jobs.records import DONE, Records


@dataclass(frozen=True)
class UnitStatus:
    """One unit: ``status`` is done, running, failed or pending.

    ``host`` and ``task`` are of who has it, or had it last; ``attempts`` in vain since it was done
    last; ``error`` is the last one's sentence.
    """

    unit: str
    status: str
    host: str | None = None
    pid: str | None = None
    task: str | None = None
    count: int | None = None
    seconds: float | None = None
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """The units of the run that was started last.

    ``listed`` false: no process has listed them all yet, and there may be more.
    """

    units: tuple[UnitStatus, ...]
    listed: bool

    def of(self, status: str) -> list[UnitStatus]:
        """The units of one status."""
        return [unit for unit in self.units if unit.status == status]


def run_status(records: Path, claims: Path) -> RunStatus:
    """Read what the processes of a run, here or elsewhere, have said of its units.

    Raises InputError where no record is there.
    """
    known = Records(records)
    known.refresh()
    planned = known.planned()
    names = sorted(known.units()) if planned is None else planned
    if not names and planned is None:
        message = (
            f"{records.parent} has no record of a run: 'patchknn tile', 'patchknn embed' and "
            "'patchknn slide compress' leave one in their output."
        )
        raise InputError(message)
    owners = living_owners(claims, names)
    return RunStatus(
        tuple(_status(name, known, owners.get(name)) for name in names), planned is not None
    )


def _status(unit: str, known: Records, owner: dict[str, str] | None) -> UnitStatus:
    event = known.latest(unit)
    failures = known.failures(unit)
    error = failures[-1].detail if failures else None
    if owner is not None:
        return UnitStatus(
            unit,
            "running",
            owner.get("host"),
            owner.get("pid"),
            owner.get("task") or None,
            attempts=len(failures),
            error=error,
        )
    if event is None:
        return UnitStatus(unit, "pending")
    host, pid, task = (
        None if value is None else str(value)
        for value in (event.owner.get(name) for name in ("host", "pid", "task"))
    )
    return UnitStatus(
        unit,
        "done" if event.status in DONE else "failed",
        host,
        pid,
        task,
        count=event.count,
        seconds=event.seconds,
        attempts=len(failures),
        error=error,
    )
