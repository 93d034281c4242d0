"""What ``evaluate`` looks for beside its figures: suspected labels, the state of the embedding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    from patchknn.evaluation.queries import LabelledSet


class Diagnosis(NamedTuple):
    """What is to be looked for, and where it goes."""

    suspects: Path | None = None

    def check(self) -> None:
        """Raise UsageError for what could not be written, before hours are spent on it."""
        if self.suspects is not None:
            from patchknn.evaluation.worklist import check_worklist_path

            check_worklist_path(self.suspects)

    def make(self, snapshot: Snapshot, asked: LabelledSet | None, judged: Evaluation) -> None:
        """Look, once the queries are answered; ``asked`` None: the archive's own rows asked."""
        if self.suspects is not None:
            _write_suspects(self.suspects, snapshot, asked, judged)


def _write_suspects(
    path: Path, snapshot: Snapshot, asked: LabelledSet | None, judged: Evaluation
) -> None:
    from patchknn.evaluation.worklist import write_worklist

    patches = None if asked is None else {patch.id: patch for patch in asked.patches}
    written = write_worklist(path, snapshot, judged.outcomes, patches)
    console.message(
        f"{path}: {written.suspects} labels are suspected; of {written.pairs} more the nearest "
        "neighbour has another label."
    )
