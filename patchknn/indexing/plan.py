"""``embed --dry-run``: what would be embedded, without an encoder and without opening slides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from patchknn.datasets.entries import iter_entries
from patchknn.datasets.patches import Problem
from patchknn.datasets.tiles import PatchSettings
from patchknn.indexing.build import Counts
from patchknn.indexing.prepare import Preparation
from patchknn.indexing.units import iter_units


def plan_build(
    arguments: Iterable[str | Path],
    archive: Path | None,
    settings: PatchSettings,
    *,
    split: str | None,
    failure: Callable[[str], None],
) -> Counts:
    """Count the sources that are to do, there already, or unusable; an archive may be absent."""
    counts = Counts()
    preparation = Preparation(archive, settings) if archive is not None else None
    for unit in iter_units(iter_entries(arguments, split=split)):
        problems: tuple[Problem, ...] = ()
        if isinstance(unit, Problem):
            problems = (unit,)
        elif preparation is None:
            counts.sources += len(unit.entries)
        else:
            looked = preparation.look(unit)
            counts.sources += len(looked.unit.entries) if looked.unit is not None else 0
            counts.skipped += looked.skipped
            problems = looked.problems
        counts.failed += len(problems)
        for problem in problems:
            failure(problem.error)
    return counts
