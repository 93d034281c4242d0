"""Units of work, each done once: by this process, its workers or a cluster, beside other runs.

Several such runs may share the units through a ledger.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence

from patchknn.jobs.engines import Engine
from patchknn.jobs.ledger import Ledger
from patchknn.jobs.units import Outcome, Payload, Unit


def run_units(
    units: Sequence[Unit[Payload]], engine: Engine[Payload], ledger: Ledger | None = None
) -> Generator[Outcome, None, None]:
    """Do each unit once and yield its outcome as it comes; order is kept by one worker.

    A unit is done after it is claimed; the work must itself find out whether it was done before.
    One that fails is tried again in the end, as often as the ledger says, and yielded when that is
    over. A full disk, a read-only one and StoppedError end the run. Units that a living process
    elsewhere has are looked at again in the end, then given up as skipped.
    """
    queue, later = deque(units), list[Unit[Payload]]()
    told: list[Outcome] = []
    in_hand, again = 0, False
    with engine:
        while queue or in_hand or later or told:
            if not queue and not in_hand and not told:
                queue, later, again = deque(later), [], True
            while queue and in_hand < engine.capacity:
                unit = queue.popleft()
                refusal = None if ledger is None else ledger.take(unit.name)
                if refusal is None:
                    engine.give(unit)
                    in_hand += 1
                elif refusal.held and not again:
                    later.append(unit)
                else:
                    told.append(refusal)
            yield from told  # after the next units are given: whoever takes them may be slow
            told = []
            for unit, outcome in engine.finished() if in_hand else ():
                in_hand -= 1
                if ledger is None or ledger.settle(outcome):
                    told.append(outcome)
                else:
                    later.append(unit)
