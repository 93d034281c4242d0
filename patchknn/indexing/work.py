"""A unit in this process's hands: what is to be embedded of it, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from patchknn.archive.rows import Rows
from patchknn.archive.writer import ArchiveWriter
from patchknn.datasets.patches import Problem
from patchknn.datasets.tiles import PatchSettings
from patchknn.errors import ConflictError
from patchknn.indexing.prepare import Looked
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.units import WorkUnit
from patchknn.jobs.units import Outcome


@dataclass(frozen=True)
class EmbeddingSettings:
    """How units are embedded, wherever that is; ``feature_dtype`` is the archive's."""

    patches: PatchSettings
    reading: ReadSettings
    batch_size: int = 64
    feature_dtype: str = "float16"


@dataclass
class Work:
    """A unit that was claimed, its rows, and what of them the writer took.

    ``looked`` says what is to be done of it. ``problems`` are its failures so far; ``empty`` counts
    sources without a patch. Not ``complete``: it was stopped with some of it done.
    """

    unit: WorkUnit
    looked: Looked
    problems: list[Problem]
    rows: Rows | None = None
    empty: int = 0
    count: int = 0
    sources: int = 0
    complete: bool = True

    def taken_in(self, writer: ArchiveWriter, *, replace: bool) -> None:
        """Give the rows to a writer, which may refuse them."""
        rows, self.rows = self.rows, None
        if rows is None:
            return
        try:
            writer.add(rows, replace=replace)
        except ConflictError as error:
            self.problems.append(Problem(self.unit.name, str(error), final=True))
        else:
            self.count, self.sources = len(rows), len(np.unique(rows.source))

    def leave_out(self, sentences: Mapping[str, str]) -> None:
        """Of the sources that the archive did not take in the end, by name, what is said of it."""
        names = [entry.name for entry in self.unit.entries if entry.name in sentences]
        self.problems += [Problem(name, sentences[name], final=True) for name in names]
        self.sources -= len(names)
        # A plain image is one row.
        self.count = 0 if self.unit.is_slide and names else self.count - len(names)

    def outcome(self) -> Outcome:
        """What is said of the unit in the run's records."""
        name, problems = self.unit.name, self.problems
        if not problems:
            return Outcome(name, "done" if self.count else "empty", count=self.count)
        detail, inputs = problems[0].error, tuple[str, ...]()
        if not self.unit.is_slide:
            detail += f" ({len(problems)} of {len(self.unit.entries)} failed.)"
            inputs = tuple(problem.name for problem in problems)
        final = all(problem.final for problem in problems)
        return Outcome(name, "failed", detail, self.count or None, final=final, inputs=inputs)


class Embedding(Protocol):
    """Embeds units, here or elsewhere.

    It calls ``finished`` with each unit's work once its rows are complete, and ``after`` with the
    number of patches that were embedded since it was called last.
    """

    def run(
        self,
        works: Iterable[Work],
        finished: Callable[[Work], None],
        after: Callable[[int], None],
    ) -> None:
        """Embed what is given, which is drawn ahead of what is finished."""

    def keep_complete_images(self, finished: Callable[[Work], None]) -> None:
        """After an interruption: of a block of images in hand, those that are done are kept."""
