"""One change to rows of shards on disk: ``changes/<uuid>.json`` and ``<uuid>.bin``, immutable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.file_checks import file_problem
from patchknn.archive.manifest import RELABEL, REMOVE, UNDONE, ChangeEntry
from patchknn.archive.mapping import map_array
from patchknn.archive.sealed import CHECKSUM, check_format, damage, read_sealed
from patchknn.archive.strings import StringTable, offsets_fit
from patchknn.errors import DamageError

CHANGES = "changes"
FORMAT = "patchknn-change"
FORMAT_VERSION = 1


class ChangeArray(NamedTuple):
    """Where an array lies in ``<uuid>.bin``: plain little-endian bytes in C order."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    checksum: str


class ChangeHead(NamedTuple):
    """The content of ``<uuid>.json``.

    ``classes``, ``names`` (of people) and ``reasons`` are what numbers in the arrays point to;
    ``rename`` is (old, new) where a class as a whole was renamed; ``size`` of the ``.bin``.
    """

    uuid: str
    kind: str
    rows: int
    time: str
    run_id: str | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    reasons: tuple[str, ...]
    rename: tuple[str, str] | None
    size: int
    arrays: dict[str, ChangeArray]

    def as_json(self) -> dict[str, Any]:
        """Not yet sealed."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "checksum_algorithm": CHECKSUM,
            **self._asdict(),
            "arrays": {name: array._asdict() for name, array in self.arrays.items()},
        }


class Event(NamedTuple):
    """One patch that was given another label; None is no label, no name, no reason."""

    id: str
    old: str | None
    new: str | None
    by: str | None
    reason: str | None


class Change:
    """One change, mapped as it is used; everything raises DamageError naming the file."""

    def __init__(self, path: Path, head: ChangeHead) -> None:
        self.path = path
        self.head = head
        self.file = path / CHANGES / f"{head.uuid}.bin"

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """The uuids of the shards it touches."""
        return tuple(line.tobytes().hex() for line in self.array("shard"))

    def rows_of(self, number: int) -> npt.NDArray[np.uint32]:
        """Rows (m,) within the shard ``shards[number]``, ascending."""
        rows = self._part("row", "first", number)
        if (rows[1:] <= rows[:-1]).any():
            problem = "rows are not in order"
            raise self.damaged(problem)
        return rows

    def labels_of(self, number: int) -> npt.NDArray[np.int32]:
        """The labels (m,) of these rows into ``head.classes``, −1 for none."""
        labels = self._part("label", "first", number)
        if len(labels) and (labels.min() < -1 or labels.max() >= len(self.head.classes)):
            problem = "a label is out of range"
            raise self.damaged(problem)
        return labels

    def dead_of(self, number: int) -> npt.NDArray[np.int32]:
        """The sources (m,) of that shard that have no live row from here on."""
        return self._part("dead", "dead_first", number)

    @property
    def has_events(self) -> bool:
        """Whether it tells of single patches: not where a class was renamed."""
        return "id_offsets" in self.head.arrays

    def events(self) -> list[Event]:
        """Whose labels changed; none where a class was renamed, or the labels are only kept."""
        if not self.has_events:
            return []
        data, offsets = self.array("id_bytes"), self.array("id_offsets")
        if not offsets_fit(data, offsets):
            problem = "its patch ids are out of range"
            raise self.damaged(problem)
        tables = (self.head.classes, self.head.classes, self.head.names, self.head.reasons)
        columns = []
        for name, table in zip(("old", "label", "by", "reason"), tables, strict=True):
            numbers = self.array(name)
            if len(numbers) and (numbers.min() < -1 or numbers.max() >= len(table)):
                problem = f"{name} is out of range"
                raise self.damaged(problem)
            words = (*table, None)  # the last entry is where −1 points
            columns.append([words[number] for number in numbers.tolist()])
        return list(map(Event, StringTable(data, offsets), *columns))

    def array(self, name: str) -> npt.NDArray[Any]:
        """One array in place."""
        if name not in self._mapped:
            place = self.head.arrays[name]
            try:
                self._mapped[name] = map_array(self.file, place.dtype, place.shape, place.offset)
            except (OSError, ValueError) as error:
                problem = f"it cannot be mapped ({error})"
                raise self.damaged(problem) from None
        return self._mapped[name]

    def damaged(self, problem: str) -> DamageError:
        """The error for something wrong in the ``.bin``."""
        return damage(self.path, f"{self.file}: {problem}.")

    def _part(self, name: str, bounds: str, number: int) -> npt.NDArray[Any]:
        values, first = self.array(name), self.array(bounds)
        if first[0] != 0 or first[-1] != len(values) or (first[1:] < first[:-1]).any():
            problem = f"{bounds} is out of range"
            raise self.damaged(problem)
        return values[first[number] : first[number + 1]]

    @cached_property
    def _mapped(self) -> dict[str, npt.NDArray[Any]]:
        return {}


def expected_arrays(kind: str, rows: int, *, events: bool) -> dict[str, tuple[str, int | None]]:
    """dtype and length of every array of a change; None where the length is free.

    ``dead`` are sources without a live row from then on; with ``events`` it is told who relabelled
    which patch, and why.
    """
    arrays: dict[str, tuple[str, int | None]] = {
        "shard": ("|u1", None),
        "first": ("<i8", None),
        "row": ("<u4", rows),
    }
    if kind == REMOVE:
        arrays |= {"dead_first": ("<i8", None), "dead": ("<i4", None)}
        return arrays
    arrays["label"] = ("<i4", rows)
    if events:
        arrays |= {"id_bytes": ("|u1", None), "id_offsets": ("<i8", rows + 1)}
        arrays |= dict.fromkeys(("old", "by", "reason"), ("<i4", rows))
    return arrays


def open_change(path: Path, entry: ChangeEntry) -> Change:
    """The change that a manifest of the archive at ``path`` names.

    Raises DamageError where a file of it is missing, changed, of a wrong size, or not the one the
    manifest means; InputError where it is of a newer format.
    """
    file = path / CHANGES / f"{entry.uuid}.json"
    value = read_sealed(file, path)
    if value["checksum"] != entry.checksum:
        raise damage(path, f"{file} is not the file that the manifest names.")
    check_format(value, file, path, FORMAT, FORMAT_VERSION)
    try:
        head = _head(value)
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        message = f"{file} lacks an entry or holds one that cannot be ({error})."
        raise damage(path, message) from None
    problem = _problem(head, entry)
    if problem is not None:
        raise damage(path, f"{file}: {problem}.")
    change = Change(path, head)
    problem = file_problem(change.file, head.size)
    if problem is not None:
        raise damage(path, problem)
    return change


def _head(value: Mapping[str, Any]) -> ChangeHead:
    rename = value["rename"]
    return ChangeHead(
        uuid=str(value["uuid"]),
        kind=str(value["kind"]),
        rows=_count(value["rows"]),
        time=str(value["time"]),
        run_id=None if value["run_id"] is None else str(value["run_id"]),
        classes=_texts(value["classes"]),
        names=_texts(value["names"]),
        reasons=_texts(value["reasons"]),
        rename=None if rename is None else _pair(_texts(rename)),
        size=_count(value["size"]),
        arrays={
            str(name): ChangeArray(
                _count(place["offset"]),
                _dtype(place["dtype"]),
                tuple(_count(length) for length in place["shape"]),
                str(place["checksum"]),
            )
            for name, place in value["arrays"].items()
        },
    )


def _problem(head: ChangeHead, entry: ChangeEntry) -> str | None:
    kind = RELABEL if entry.kind == UNDONE else entry.kind
    if (head.uuid, head.kind, head.rows) != (entry.uuid, kind, entry.rows):
        return "it is another change than the manifest names"
    expected = expected_arrays(head.kind, head.rows, events="id_offsets" in head.arrays)
    for name, (dtype, length) in expected.items():
        place = head.arrays.get(name)
        if place is None:
            return f"the array {name} is missing"
        shape = (place.shape[0], 16) if name == "shard" and place.shape else (place.shape[:1])
        fits = place.shape == shape and len(shape) > 0 and (length is None or shape[0] == length)
        if place.dtype != dtype or not fits:
            return f"the array {name} is {place.dtype} {list(place.shape)}"
    for name, place in head.arrays.items():  # those of a later version too
        nbytes = math.prod(place.shape) * np.dtype(place.dtype).itemsize
        if place.offset + nbytes > head.size:
            return f"the array {name} reaches beyond the end of its file"
    shards = head.arrays["shard"].shape[0]
    for name in ("first", "dead_first"):
        if name in expected and head.arrays[name].shape != (shards + 1,):
            return f"the array {name} does not fit its {shards} shards"
    return None


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        message = f"{value!r} is no count"
        raise TypeError(message)
    return value


def _dtype(value: Any) -> str:
    if not isinstance(value, str) or np.dtype(value).hasobject:
        message = f"{value!r} is no dtype of numbers"
        raise TypeError(message)
    return value


def _pair(texts: tuple[str, ...]) -> tuple[str, str]:
    old, new = texts
    return old, new


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        message = f"{value!r} is no list of texts"
        raise TypeError(message)
    return tuple(value)
