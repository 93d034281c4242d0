"""One setting of the search swept over values, all else as it is (k: paper B, Table S4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import UsageError
from patchknn.evaluation.comparison.prefixes import PrefixSearcher
from patchknn.evaluation.evaluate import Contestant
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.figures.intervals import bootstrap_intervals
from patchknn.evaluation.ways import Ways
from patchknn.jobs.cpus import available_cpus
from patchknn.search.settings import SearchSettings

SWEPT = ("k", "radius", "bits")
FIGURES = ("accuracy", "mean_class_recall", "precision_at_k", "mean_ball", "widened")
COLUMNS = ("sweep", "value", *FIGURES)


class Sweep(NamedTuple):
    """The setting ``name``, one of ``SWEPT``, and its values in the order given."""

    name: str
    values: tuple[int, ...]


def read_sweep(text: str) -> Sweep:
    """A sweep in words, such as ``k=1,3,5``. Raises UsageError where it is none."""
    name, _, listed = text.partition("=")
    try:
        values = tuple(dict.fromkeys(int(value) for value in listed.split(",")))
    except ValueError:
        values = ()
    if name not in SWEPT or not values:
        message = f"--sweep {text}: say it as in --sweep k=1,3,5, radius=0,1,2 or bits=8,16."
        raise UsageError(message)
    return Sweep(name, values)


def swept(
    snapshot: Snapshot,
    settings: SearchSettings,
    sweep: Sweep,
    ways: Callable[[SearchSettings], Ways],
) -> list[Contestant]:
    """A way to search for each value; ``ways`` makes those of ordinary settings.

    ``bits`` are searched in this process, by the first bits of the codes. Raises UsageError where
    a value cannot be.
    """
    if sweep.name != "k" and settings.coarse != "hamming":
        message = f"--sweep {sweep.name} is of the Hamming ball: leave --coarse away."
        raise UsageError(message)
    contestants = []
    for value in sweep.values:
        given = settings._asdict()
        if sweep.name != "bits":
            given[sweep.name] = value
        changed = SearchSettings(**given)
        made = _by_bits(snapshot, changed, value) if sweep.name == "bits" else ways(changed)
        contestants.append(Contestant(f"{sweep.name}={value}", changed, made))
    return contestants


def sweep_rows(
    sweep: Sweep, evaluations: Sequence[Evaluation], replicates: int, seed: int
) -> list[dict[str, Any]]:
    """A row of figures, with intervals by patient, for each value.

    ``evaluations`` are of ``swept`` in its order.
    """
    rows = []
    for value, evaluation in zip(sweep.values, evaluations, strict=True):
        figures = evaluation.figures()
        intervals = bootstrap_intervals(evaluation.outcomes, replicates, seed)
        rows.append(
            {
                "sweep": sweep.name,
                "value": value,
                **{name: figures[name] for name in FIGURES},
                "intervals": {n: list(ends) for n, ends in intervals.items() if n in FIGURES},
            }
        )
    return rows


def _by_bits(snapshot: Snapshot, settings: SearchSettings, bits: int) -> Ways:
    threads = available_cpus()
    narrow = settings._replace(max_radius=settings.radius)
    return Ways(
        PrefixSearcher(snapshot, settings, bits, threads),
        PrefixSearcher(snapshot, narrow, bits, threads),
        None,
    )
