"""Commands whose units are slides: who does them, what is told of each, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from patchknn.cli import console
from patchknn.errors import UsageError

if TYPE_CHECKING:
    from patchknn.jobs.engines import Engine
    from patchknn.jobs.units import Outcome, Unit, Work

Payload = TypeVar("Payload")
_COUNTED = ("done", "planned", "skipped", "empty", "failed")


@dataclass(frozen=True)
class UnitsRun:
    """One process's part in a run that makes a file of each slide in the folder ``output``.

    ``thing`` is what a slide is made into several of, and the name of that column.
    """

    command: str
    output: Path
    thing: str
    retries: int = 1
    only_failed: bool = False
    dask: str | None = None
    dry_run: bool = False

    @contextmanager
    def outcomes(
        self,
        units: Sequence[Unit[Payload]],
        work: Work[Payload],
        local: Callable[[int], Engine[Payload]],
    ) -> Iterator[Generator[Outcome, None, None]]:
        """What becomes of units as they are done, in the given order, each by one process.

        ``local`` makes the engine for that many units, where it is not the workers of a cluster,
        which do the ``work``. A dry run claims and notes nothing.
        """
        from patchknn.jobs.claims import CLAIMS
        from patchknn.jobs.ledger import Ledger
        from patchknn.jobs.records import RECORDS
        from patchknn.jobs.run import run_units

        if self.output.exists() and not self.output.is_dir():
            message = f"{self.output} is a file, not a folder; choose another -o."
            raise UsageError(message)
        with ExitStack() as stack:
            ledger = None
            if not self.dry_run:
                self.output.mkdir(parents=True, exist_ok=True)
                ledger = Ledger(
                    *(self.output / CLAIMS, self.output / RECORDS, self.command),
                    retries=self.retries,
                    only_failed=self.only_failed,
                )
                stack.enter_context(ledger)
                ledger.plan([unit.name for unit in units])
                if self.only_failed:
                    failed = ledger.failed_before()
                    units = [unit for unit in units if unit.name in failed]
            if self.dask is None:
                engine = local(len(units))
            else:
                from patchknn.jobs.connecting import connected

                engine = stack.enter_context(connected(self.dask, console.warn)).engine(work)
            outcomes = run_units(units, engine, ledger)
            with closing(outcomes):  # a signal ends the workers at once, not when Python tidies up
                yield outcomes

    def tell(
        self,
        outcomes: Iterable[Outcome],
        describe: Callable[[Outcome], dict[str, Any]],
        columns: Sequence[str],
        style: str,
        title: str,
    ) -> int:
        """Print what becomes of the slides as it comes, and a summary; the exit code.

        ``describe`` gives the row of one: ``name``, ``status``, the things, ``path``, ``detail``.
        A table leaves the paths out.
        """
        counts = dict.fromkeys(_COUNTED, 0)

        def rows() -> Iterator[dict[str, Any]]:
            for outcome in outcomes:
                counts[outcome.status] += 1
                yield self._row(outcome, describe(outcome))

        if style == "table":
            columns = [column for column in columns if column != "path"]
        console.write_rows(rows(), columns, style, title=title)
        console.message(self._summary(counts))
        if counts["failed"]:
            return 1 if counts["failed"] == sum(counts.values()) else 3
        return 0

    def _row(self, outcome: Outcome, row: dict[str, Any]) -> dict[str, Any]:
        name = row["name"]
        if outcome.status == "failed":
            console.fail(outcome.detail)
            row |= {"path": None, "error": outcome.detail}
        elif outcome.detail and outcome.count != 0:
            console.message(f"{name}: {outcome.detail}")
        things = f", {outcome.count} {self.thing}" if outcome.count else ""
        console.log(f"{name}: {outcome.status}{things}.")
        return row

    def _summary(self, counts: Mapping[str, int]) -> str:
        if self.dry_run:
            order: Sequence[str] = ("planned", "skipped", "failed")
        else:
            order = ("done", "skipped", "empty", "failed")
        text = ", ".join(f"{counts[status]} {status}" for status in order)
        return f"{self.command}: {text}."
