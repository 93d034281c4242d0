"""``embed --profile``: where the time went, and what limits."""

from __future__ import annotations

from patchknn.cli import console
from patchknn.indexing.profile import Figures, Stage, Work
from patchknn.jobs.cpus import available_cpus

_STAGES: dict[Stage, str] = {
    "preparing": "opening slides and tile sets, finding tissue",
    "waiting": "waiting for readers",
    "copying": "copying to the GPU",
    "forward": "forward pass",
    "taking": "taking rows",
    "writing": "writing and publishing shards",
    "indexing": "indexing",
}


def print_profile(figures: Figures, device: str, workers: int) -> None:
    """A line for each stage on stderr, and a sentence that says what limits."""
    patches = figures.stages["forward"].patches
    console.message(f"profile: {patches:,} patches in {figures.seconds:.1f} s")
    for number, reader in enumerate(figures.readers.values(), 1):
        name = f"reader {number}" if workers else "reading"
        console.message(_line(name, reader, reader.seconds / max(figures.seconds, 1e-9)))
    if len(figures.readers) > 1:
        together = sum(work.rate or 0 for work in figures.readers.values())
        console.message(f"  {'all readers':<46}{together:>10,.1f} patches/s while busy")
    for stage, name in _STAGES.items():
        if stage == "copying" and device == "cpu":
            continue
        console.message(_line(name, figures.stages[stage], figures.busy(stage)))
    console.message(limiting(figures, device=device, cpus=available_cpus(), workers=workers))


def _line(name: str, work: Work, share: float) -> str:
    rate = f"{work.rate:>10,.1f} patches/s, " if work.patches and work.rate else " " * 22
    return f"  {name:<46}{rate}{100 * share:5.1f} % of the time"


def limiting(figures: Figures, *, device: str, cpus: int, workers: int) -> str:
    """One sentence: what the rest waited for most, and what would help."""
    limit = figures.limit()
    waited, readers = 100 * figures.busy("waiting"), 100 * figures.busy_readers()
    if limit == "nothing":
        return "nothing was embedded, so nothing limits."
    if limit == "preparing":
        share = 100 * figures.busy("preparing")
        return (
            f"finding tissue limits: {share:.0f} % of the time went into opening slides; 'patchknn "
            "tile' does that beforehand, with many workers."
        )
    if limit == "archive":
        stages: tuple[Stage, ...] = ("taking", "writing", "indexing")
        share = 100 * sum(figures.busy(stage) for stage in stages)
        return (
            f"the archive limits: {share:.0f} % of the time went into its rows; a larger "
            "--publish-every, or a faster disk, would help."
        )
    if limit == "reading":
        remedy = "more --workers would help"
        if not workers:
            remedy = "--workers 1 or more would read beside it"
        elif workers >= cpus:
            remedy = f"all {cpus} CPUs read already, and more of them would help"
        return f"reading limits: the encoder waited {waited:.0f} % of the time; {remedy}."
    busy = 100 * (figures.busy("forward") + figures.busy("copying"))
    remedy = "more CPUs or a GPU" if device == "cpu" else "--precision bfloat16, or --compile,"
    beside = f", a reader {readers:.0f} %" if workers else ""
    return f"the encoder limits: it was busy {busy:.0f} % of the time{beside}; {remedy} would help."
