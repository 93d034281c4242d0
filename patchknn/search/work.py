"""What a query took, so that a user can see what makes it slow."""

from __future__ import annotations

from typing import Any, NamedTuple

from patchknn.hamming import code_table

PATHS = (*code_table.PATHS, "l2", "annoy")


class Work(NamedTuple):
    """The path of the first stage and its steps, and the rows of the second.

    ``path`` counts in ``PATHS``; where several parts were searched, the last of theirs.
    ``lookups`` in the index's tables, ``candidates`` that these led to, ``scanned``: codes that
    were compared one after the other. ``read`` rows had their features read, ``spared`` rows were
    ruled out by their sketch alone.
    """

    path: int = 0
    lookups: int = 0
    candidates: int = 0
    scanned: int = 0
    read: int = 0
    spared: int = 0

    def as_json(self) -> dict[str, Any]:
        """The entries of ``explain`` that are about the query."""
        return {
            "path": PATHS[self.path],
            "lookups": self.lookups,
            "candidates": self.candidates,
            "codes_scanned": self.scanned,
            "rows_read": self.read,
            "rows_spared": self.spared,
        }
