"""What ``slide compress`` is to do, as units of work: which slides, and where each grid goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from patchknn.datasets.entries import Entry, iter_entries
from patchknn.datasets.patches import Problem
from patchknn.indexing.units import about_patches
from patchknn.jobs.units import Outcome, Unit
from patchknn.slides.outputs import output_files
from patchknn.wholeslide.grids.compress import compress_unit
from patchknn.wholeslide.grids.compress_settings import CompressSettings, GridUnit

Payload = GridUnit | Problem
"""A slide, or an input that is none: it is noted among the rest, so that all of them are told."""


def plan_grids(
    arguments: Iterable[str | Path], folder: Path, settings: CompressSettings, suffix: str
) -> list[Unit[Payload]]:
    """The slides and tile sets that files, folders and lists name, the largest first.

    Before them comes what cannot be used. Grids go below ``folder``, by the slide's name with
    ``suffix``; what lies there already is not taken for an input. An image is a slide here, as
    ``tile`` has it.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for item in iter_entries(arguments, exclude=folder):
        if isinstance(item, Problem):
            problems.append(item)
        elif item.kind == "rows":
            message = (
                f"{item.name}: patches of it are listed, and a grid is made of the whole slide: "
                "give slides, a list of slides, or tile sets."
            )
            problems.append(Problem(item.name, message))
        else:
            kind = "slide" if item.kind == "image" else item.kind
            # Labels are of no use to a grid, and to read annotations takes time.
            entries.append(replace(item, kind=kind, label=None, annotations=None))
    entries.sort(key=lambda entry: -about_patches(entry))
    payloads: dict[str, Payload] = {}
    for entry, output in zip(entries, output_files(entries, folder, suffix), strict=True):
        # A slide that clashes shares its file with another, so it needs a name of its own.
        name = entry.name if output.clash is None else str(entry.path)
        payloads[name] = GridUnit(entry, output.path, settings, output.clash)
    unusable: dict[str, Payload] = {}
    for problem in problems:
        taken = problem.name in payloads or problem.name in unusable
        unusable[problem.error if taken else problem.name] = problem
    return [Unit(name, payload) for name, payload in (unusable | payloads).items()]


def make_grid(unit: Unit[Payload], advance: Callable[[int], None] = lambda _: None) -> Outcome:
    """Make one grid; ``advance`` is told of each batch of patches that is done."""
    return _work(unit, advance, dry_run=False)


def plan_grid(unit: Unit[Payload]) -> Outcome:
    """Say what would become of one slide."""
    return _work(unit, lambda _: None, dry_run=True)


def _work(unit: Unit[Payload], advance: Callable[[int], None], *, dry_run: bool) -> Outcome:
    if isinstance(unit.payload, Problem):
        return Outcome(unit.name, "failed", unit.payload.error, final=True)
    result = compress_unit(unit.payload, dry_run=dry_run, advance=advance)
    return Outcome(unit.name, result.status, result.detail, result.patches, result=result.shape)
