"""What ``embed`` does once its command line is read: embed, tell of it, sum up."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchknn.archive.runs import describe_run, new_run_id
from patchknn.cli import console
from patchknn.indexing.build import ArchiveBuild, BuildSettings, Counts, Report
from patchknn.indexing.profile import Stopwatch
from patchknn.indexing.work import Embedding
from patchknn.jobs.units import Outcome

_COUNTED = ("rows", "sources", "skipped", "replaced", "empty", "failed", "held")


@dataclass(frozen=True)
class EmbedRun:
    """An archive, who embeds for it, and how; ``told`` is what the run's record says of that."""

    archive: Path
    embedding: Embedding
    settings: BuildSettings
    told: dict[str, Any]

    def embed(self, arguments: list[str], stopwatch: Stopwatch) -> int:
        """Embed what the arguments name, and print a summary, also of what was stopped; the exit
        code."""
        started = time.monotonic()
        bar = console.ProgressBar(None, "embed", "patch")
        build = ArchiveBuild(
            self.archive,
            self.embedding,
            self.settings,
            Report(
                patches=bar.advance,
                failure=lambda _, sentence: console.message(sentence),
                warning=console.warn,
                unit=_log,
            ),
            run_id=new_run_id(),
            record=describe_run(["patchknn", *sys.argv[1:]], self.told),
            stopwatch=stopwatch,
        )
        try:
            with bar:
                build.run(arguments)
        finally:
            if build.counts.manifest is not None:
                _summarise(self.archive, build.counts, time.monotonic() - started)
        return exit_code(build.counts)


def exit_code(counts: Counts) -> int:
    """3 where some inputs failed, 1 where all of them did."""
    if not counts.failed:
        return 0
    return 3 if counts.sources or counts.skipped or counts.empty or counts.held else 1


def _log(outcome: Outcome) -> None:
    rows = f", {outcome.count} rows" if outcome.count else ""
    console.log(f"{outcome.unit}: {outcome.status}{rows}.")


def _summarise(archive: Path, counts: Counts, seconds: float) -> None:
    summary: dict[str, Any] = {"archive": str(archive), "manifest": counts.manifest}
    summary |= {name: getattr(counts, name) for name in _COUNTED}
    summary["seconds"] = round(seconds, 2)
    summary["patches_per_second"] = round(counts.patches / seconds, 1) if seconds > 0 else None
    console.write_rows([summary], list(summary), console.output_format(None))
    if counts.held:
        console.message(
            f"{counts.held} sources are in the hands of other processes; if one of these is "
            "killed, run the same command again ('patchknn jobs status' tells of all)."
        )
