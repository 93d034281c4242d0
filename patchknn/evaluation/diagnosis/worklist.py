"""The worklist of suspected labels as a table, which ``archive relabel`` or ``train`` takes.

``label`` is what is suggested, ``current`` what stands there now. Rows of the kind ``votes`` are
suspects of confident learning (see ``suspects``), the largest margin first; ``relabel`` gives them
what is suggested. Rows of the kind ``pair`` are those whose nearest neighbour has another label:
one of the two is probably wrong, and which one is for people to say: their ``label`` is what stands
there now, which ``relabel`` leaves.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.evaluation.diagnosis.suspects import cross_class_pairs, find_suspects
from patchknn.evaluation.outcomes import Outcomes
from patchknn.files import check_output, replaced_atomically
from patchknn.search.rows import RowReader

COLUMNS = (
    *("id", "label", "current", "score", "kind", "votes", "of", "patients", "copies"),
    *("nearest", "nearest_label", "nearest_l2", "reason"),
)
"""``votes`` of the ``of`` neighbours with a label have the one that is suggested, or of a pair the
nearest one's; they are of so many ``patients``. ``copies`` of the neighbours lie at distance 0."""
MANIFEST_COLUMNS = ("path", "x", "y", "mpp", "name", "patient", "split")
_DELIMITERS = {".tsv": "\t", ".csv": ","}
WORKLIST_SUFFIXES = tuple(_DELIMITERS)
_MOST_PAIRS = 200
_BLOCK = 1024


class Written(NamedTuple):
    """How many rows of each kind a worklist has."""

    suspects: int
    pairs: int


class _Group(NamedTuple):
    """Outcomes (m,) of a kind, the class that speaks against each, and the margin (NaN: none)."""

    kind: str
    numbers: npt.NDArray[np.int64]
    against: npt.NDArray[np.integer[Any]]
    score: npt.NDArray[np.float64]

    def blocks(self) -> Iterator[_Group]:
        for start in range(0, len(self.numbers), _BLOCK):
            some = slice(start, start + _BLOCK)
            yield _Group(self.kind, self.numbers[some], self.against[some], self.score[some])


def write_worklist(
    path: Path,
    snapshot: Snapshot,
    outcomes: Outcomes,
    patches: Mapping[str, Patch] | None = None,
) -> Written:
    """Write the suspects among outcomes of a snapshot's search, whole or not at all.

    ``patches`` by id are those that asked, where they are not rows of the archive: their table is
    a manifest. Raises UsageError as ``check_output``.
    """
    check_output(path, "--suspects", WORKLIST_SUFFIXES)
    known = np.isin(np.array(outcomes.classes, object), np.array(snapshot.classes, object))
    suspects = find_suspects(outcomes, known)
    pairs = cross_class_pairs(outcomes, _MOST_PAIRS + len(suspects.numbers))
    apart = ~np.isin(pairs.numbers, suspects.numbers) & known[outcomes.label[pairs.numbers]]
    paired = pairs.numbers[apart][:_MOST_PAIRS]
    columns = COLUMNS if patches is None else (*COLUMNS, *MANIFEST_COLUMNS)
    nearest = outcomes.neighbours[:, 0] if outcomes.k else outcomes.label
    groups = (
        _Group("votes", suspects.numbers, suspects.suggested, suspects.score),
        _Group("pair", paired, nearest[paired], np.full(len(paired), np.nan)),
    )
    with (
        replaced_atomically(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        delimiter = _DELIMITERS[path.suffix.lower()]
        writer = csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        for group in chain.from_iterable(group.blocks() for group in groups):
            for row in _rows(snapshot, outcomes, group):
                added = {} if patches is None else _as_manifest(patches[row["id"]])
                writer.writerow(row | added)
    return Written(len(suspects.numbers), len(paired))


def _rows(snapshot: Snapshot, outcomes: Outcomes, group: _Group) -> Iterator[dict[str, Any]]:
    """The lines of a group."""
    kind, numbers, against, score = group
    names = outcomes.classes
    neighbours = outcomes.neighbours[numbers]
    voters = neighbours >= 0
    support = neighbours == against[:, None]
    patients = _distinct_patients(snapshot, outcomes.rows[numbers], support)
    copies = (outcomes.distances[numbers] == 0).sum(axis=1)
    for at, number in enumerate(numbers.tolist()):
        label, other = names[outcomes.label[number]], names[against[at]]
        votes, of = int(support[at].sum()), int(voters[at].sum())
        nearest = snapshot.row(int(outcomes.rows[number, 0]))
        reason = f"suspected: votes for {other} {votes} of {of}, patients {patients[at]}"
        if kind == "pair":
            reason = f"its nearest neighbour is {other}"
        yield {
            "id": outcomes.queries[number],
            "label": other if kind == "votes" else label,
            "current": label,
            "score": "" if np.isnan(score[at]) else f"{score[at]:.4f}",
            "kind": kind,
            "votes": votes,
            "of": of,
            "patients": patients[at],
            "copies": int(copies[at]),
            "nearest": nearest.id,
            "nearest_label": nearest.label or "",
            "nearest_l2": f"{outcomes.distances[number, 0]:.6g}",
            "reason": reason,
        }


def _distinct_patients(
    snapshot: Snapshot, rows: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]
) -> list[int]:
    """Of how many patients the chosen of rows (m, k) are; an unknown one is its source's."""
    keys = iter(RowReader(snapshot).group_keys(rows[chosen], "patient"))
    return [len({next(keys) for _ in range(count)}) for count in chosen.sum(axis=1).tolist()]


def _as_manifest(patch: Patch) -> dict[str, Any]:
    return {
        "path": patch.path.absolute(),
        "x": patch.x,
        "y": patch.y,
        "mpp": patch.slide_mpp or "",
        "name": patch.source,
        "patient": patch.patient or "",
        "split": patch.split or "",
    }
