"""Which units of a run this process may take, and what it says of them to the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import chain
from pathlib import Path
from typing import Self

from patchknn.errors import InputError, StoppedError
from patchknn.jobs.claims import Claims
from patchknn.jobs.records import DONE, Event, Record, Records
from patchknn.jobs.units import Outcome


class Ledger:
    """Claims on the units of a run, the records of all its processes, and this one's own.

    ``claims`` and ``records`` are folders of the run's output. A unit that fails is tried
    ``retries`` times more, whichever of the processes tries it: the tasks of one Slurm array, and
    processes that run at the same time, count together. With ``only_failed`` a run is about what
    failed before, and what an array failed at earlier does not count. ``clean`` is applied to
    sentences that are kept. A context manager, left with what ended the run.
    """

    def __init__(
        self,
        claims: Path,
        records: Path,
        command: str,
        *,
        retries: int = 1,
        only_failed: bool = False,
        clean: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.retries = retries
        self._heed_array = not only_failed
        self._claims = Claims(claims)
        self._record = Record(records, command, clean)
        self._records = Records(records)
        # What is said from now on is of this run. Not by the time that it says: clocks differ.
        self._records.refresh()
        self._first = self._records.count
        self._taken: dict[str, float] = {}
        self._found_done: set[str] = set()
        self._failures: dict[str, list[Outcome]] = {}

    def failed_before(self) -> set[str]:
        """The units of which the records say last that they failed, and what of them has failed.

        Raises InputError where there are no records at all.
        """
        self._records.refresh()
        units = self._records.units()
        if not units:
            message = "--only-failed: no record tells of an earlier run; leave it away."
            raise InputError(message)
        failed = [unit for unit in units if self._last_status(unit) == "failed"]
        inputs = (event.inputs for unit in failed for event in self._records.failures(unit)[-1:])
        return {*failed, *chain.from_iterable(inputs)}

    def plan(self, units: Collection[str]) -> None:
        """Say which units there are."""
        self._record.plan(units)

    def take(self, unit: str) -> Outcome | None:
        """Claim a unit; None where it is this process's now, else why it is not to be done here."""
        if not self._claims.claim(unit):
            holder = self._claims.holder(unit) or "another process"
            return Outcome(unit, "skipped", f"in the hands of {holder}", held=True)
        end = self.given_up(unit)
        if end is not None:
            self._claims.release(unit)
            return end
        self._taken.setdefault(unit, time.monotonic())
        return None

    def given_up(self, unit: str) -> Outcome | None:
        """The end of a unit that this run has tried often enough in vain, None where it has not.

        To be asked once it is taken: whoever had it before has said what became of it. It failed
        where this process tried it too, else it is left to those that did.
        """
        self._records.refresh()
        events = self._records.failures(unit)
        others = [event for event in events if self._is_of_run(event) and not self._is_own(event)]
        own = self._failures.get(unit, [])
        final = any(event.final for event in others) or any(one.final for one in own)
        if not final and len(others) + len(own) <= self.retries:
            return None
        if own:
            return own[-1]
        who = others[-1].owner
        place = f"{who.get('host')}, {who.get('task') or 'process ' + str(who.get('pid'))}"
        return Outcome(unit, "skipped", f"it failed elsewhere ({place}): {others[-1].detail}")

    def settle(self, outcome: Outcome) -> bool:
        """Note what became of a unit, and let it go; whether that is its end."""
        unit = outcome.unit
        if outcome.status == "skipped":
            self._found_done.add(unit)  # noted in the end, unless another record says so
            self.release(unit)
            return True
        began = self._taken.get(unit)
        self._record.note(
            unit,
            outcome.status,
            detail=outcome.detail,
            count=outcome.count,
            seconds=None if began is None else time.monotonic() - began,
            final=outcome.final,
            inputs=outcome.inputs,
        )
        if outcome.status == "failed":
            self._failures.setdefault(unit, []).append(outcome)
        self.release(unit)
        return outcome.status != "failed" or self.given_up(unit) is not None

    def release(self, unit: str) -> None:
        """Let a unit go without a word."""
        self._taken.pop(unit, None)
        self._claims.release(unit)

    def close(self, how: str = "done") -> None:
        """Release everything and end the record."""
        try:
            if self._found_done:
                self._records.refresh()
                for unit in sorted(self._found_done):
                    if self._last_status(unit) not in DONE:
                        self._record.note(unit, "skipped")
            self._record.end(how)
        finally:
            self._claims.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, GeneratorExit):
            self.close()
        elif issubclass(kind, StoppedError | KeyboardInterrupt):
            self.close("stopped")
        else:
            self.close("failed")

    def _last_status(self, unit: str) -> str | None:
        event = self._records.latest(unit)
        return None if event is None else event.status

    def _is_own(self, event: Event) -> bool:
        return event.owner.get("token") == self._record.token

    def _is_of_run(self, event: Event) -> bool:
        if event.number >= self._first:
            return True
        # What this very task failed at before it was started again, it may try again.
        array = event.owner.get("array")
        same_array = array is not None and array == self._record.array
        return self._heed_array and same_array and event.owner.get("task") != self._record.task
