"""What became of each unit of a run, in one file per process that only that process writes.

A line is one JSON object, and is written whole: ``start`` says who works, ``plan`` names the file
that lists the units, ``unit`` says what became of one, ``end`` how the process ended. The records
only inform: a unit is done because its output is there, not because a record says so.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from patchknn.files import write_bytes
from patchknn.jobs.process import array_name, task_name, this_process

RECORDS = ".jobs"
DONE = frozenset({"done", "skipped", "empty"})
_OWN = re.compile(r"(\.tmp-[0-9a-f]{12}-)?(plan-[0-9a-f]{24}|\d{8}T\d{6}Z-[0-9a-f]{16})\.ndjson")

_KEPT_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Event:
    """What a record says of one unit: its ``status``, why, how many things it gave, and when.

    ``owner`` is what the process said of itself: host, pid, task, array, token. ``final``: a
    failure that another try will not mend; ``inputs`` are the parts of the unit that failed.
    ``number`` counts the events in the order in which they were read, from 0.
    """

    unit: str
    status: str
    detail: str
    count: int | None
    seconds: float | None
    time: float
    owner: Mapping[str, Any]
    final: bool = False
    inputs: tuple[str, ...] = ()
    number: int = 0


class Record:
    """This process's own record, below ``folder``; nothing is written before there is something.

    ``clean`` is applied to sentences and names, to leave out what must not be kept. What cannot be
    written, such as on a full disk, is left: the work itself will say so.
    """

    def __init__(
        self, folder: Path, command: str, clean: Callable[[str], str] = lambda text: text
    ) -> None:
        self._folder = folder
        self._clean = clean
        self.started = time.time()
        self.token = secrets.token_hex(8)
        self.array, self.task = array_name(), task_name()
        self._who = {
            "event": "start",
            "command": command,
            "time": self.started,
            "array": self.array,
            "task": self.task,
            "token": self.token,
            **this_process(),
        }
        self._file: int | None = None

    def plan(self, units: Iterable[str]) -> None:
        """Say which units there are, whoever does them; the same list is kept once."""
        with suppress(OSError):
            self._plan(units)

    def _plan(self, units: Iterable[str]) -> None:
        names = sorted(map(self._clean, units))
        lines = "".join(f"{json.dumps(name)}\n" for name in names).encode()
        file = self._folder / f"plan-{hashlib.sha256(lines).hexdigest()[:24]}.ndjson"
        if file.exists():
            if time.time() - file.stat().st_mtime > _KEPT_SECONDS / 2:
                os.utime(file)  # or it would go with the next run
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_bytes(file, lines)
        self._write({"event": "plan", "plan": file.name, "time": time.time()})

    def note(
        self,
        unit: str,
        status: str,
        *,
        detail: str = "",
        count: int | None = None,
        seconds: float | None = None,
        final: bool = False,
        inputs: Sequence[str] = (),
    ) -> None:
        """Say what became of a unit."""
        event: dict[str, Any] = {"event": "unit", "unit": self._clean(unit), "status": status}
        event["time"] = time.time()
        if inputs:
            event["inputs"] = list(map(self._clean, inputs))
        if final:
            event["final"] = True
        if detail:
            event["detail"] = self._clean(detail)
        if count is not None:
            event["count"] = count
        if seconds is not None:
            event["seconds"] = round(seconds, 3)
        self._write(event)
        if status == "failed" and self._file is not None:
            # Who takes the unit next, on another host, must know how often it was tried.
            with suppress(OSError):
                os.fsync(self._file)

    def end(self, how: str) -> None:
        """The last line, and an end to what is a month old in the folder."""
        if self._file is None:
            return
        self._write({"event": "end", "how": how, "time": time.time()})
        file, self._file = self._file, None
        os.close(file)
        with suppress(OSError):
            _forget_old(self._folder)

    def _write(self, event: Mapping[str, Any]) -> None:
        with suppress(OSError):
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{self.token}.ndjson"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._file = os.open(self._folder / name, flags, 0o666)
                self._write(self._who)
            os.write(self._file, (json.dumps(event) + "\n").encode())


@dataclass
class _Source:
    """How far one process's file was read."""

    offset: int = 0
    ended: bool = False
    owner: Mapping[str, Any] = field(default_factory=dict)


class Records:
    """What the records below ``folder`` say together; ``refresh`` reads what was added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = 0  # events of units that were read
        self._sources: dict[str, _Source] = {}
        self._latest: dict[str, Event] = {}
        self._failures: dict[str, list[Event]] = {}
        self._done_at: dict[str, float] = {}
        self._plan: tuple[float, str] | None = None

    def refresh(self) -> None:
        """Read on where the last call ended."""
        try:
            names = sorted(os.listdir(self._folder))  # noqa: PTH208  called for every unit
        except OSError:  # none yet, or the server is away
            return
        for name in names:
            if _OWN.fullmatch(name) and not name.startswith((".", "plan-")):
                self._read(name)

    def latest(self, unit: str) -> Event | None:
        """What was said last of a unit, None where nothing was."""
        return self._latest.get(unit)

    def units(self) -> list[str]:
        """All that any record speaks of."""
        return list(self._latest)

    def failures(self, unit: str) -> list[Event]:
        """Every failure of a unit since it was done last, by time."""
        since = self._done_at.get(unit, -math.inf)
        failures = [event for event in self._failures.get(unit, ()) if event.time > since]
        return sorted(failures, key=lambda event: event.time)

    def planned(self) -> list[str] | None:
        """The units of the run that was started last, None where no record has listed them."""
        if self._plan is None:
            return None
        try:
            text = (self._folder / self._plan[1]).read_text(encoding="utf-8")
            return [str(json.loads(line)) for line in text.splitlines()]
        except (OSError, ValueError):
            return None

    def _read(self, name: str) -> None:
        source = self._sources.setdefault(name, _Source())
        if source.ended:  # as most have, where a month's are kept
            return
        try:
            # Not asked for its size first: a network file system answers that from memory.
            with (self._folder / name).open("rb", buffering=0) as file:
                file.seek(source.offset)
                data = file.read()
        except OSError:  # purged, or the server is away: the next look will tell
            return
        whole = data.rfind(b"\n") + 1  # the last line may be on its way, or of a killed process
        source.offset += whole
        for line in data[:whole].splitlines():
            try:
                event = json.loads(line)
                self._take(source, event)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue

    def _take(self, source: _Source, event: dict[str, Any]) -> None:
        kind, at = event["event"], float(event["time"])
        if kind == "start":
            source.owner = event
        elif kind == "end":
            source.ended = True
        elif kind == "plan" and (self._plan is None or at >= self._plan[0]):
            self._plan = (at, str(event["plan"]))
        elif kind == "unit":
            one = Event(
                unit=str(event["unit"]),
                status=str(event["status"]),
                detail=str(event.get("detail", "")),
                count=event.get("count"),
                seconds=event.get("seconds"),
                time=at,
                owner=source.owner,
                final=event.get("final") is True,
                inputs=tuple(map(str, event.get("inputs", ()))),
                number=self.count,
            )
            self.count += 1
            known = self._latest.get(one.unit)
            if known is None or at >= known.time:
                self._latest[one.unit] = one
            if one.status == "failed":
                self._failures.setdefault(one.unit, []).append(one)
            elif one.status in DONE:  # files are read one after the other, not by time
                self._done_at[one.unit] = max(at, self._done_at.get(one.unit, at))


def _forget_old(folder: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for file in folder.iterdir():
        try:
            if _OWN.fullmatch(file.name) and file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)
        except OSError:
            continue
