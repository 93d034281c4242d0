"""Which patches train and which judge: labels, classes, splits, and what is wrong with them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchknn.datasets.patches import Patch
from patchknn.datasets.splits import parse_fractions, split_by_patient
from patchknn.errors import InputError, UsageError
from patchknn.files import write_bytes

TRAINING_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", "testing")
DEFAULT_FRACTIONS = (85.0, 15.0)
_PATCH_COLUMNS = ("path", "name", "label", "patient", "split", "x", "y", "mpp")
_FEATURE_COLUMNS = ("slide", "label", "patient", "split", "x", "y")


@dataclass(frozen=True)
class SplitChoice:
    """How ``--split`` and ``--val-split`` choose rows.

    ``fractions`` make new splits by patient; ``train`` and ``val`` name splits of a manifest;
    ``nothing`` trains on every row.
    """

    fractions: tuple[float, ...] | None = None
    train: str | None = None
    val: str | None = None
    nothing: bool = False

    @staticmethod
    def parse(split: str | None, val_split: str | None) -> SplitChoice:
        """``70/15/15``, ``none`` or a name; raises UsageError for malformed fractions."""
        if split is None:
            return SplitChoice(val=val_split)
        if split == "none":
            return SplitChoice(nothing=True, val=val_split)
        if "/" not in split:
            return SplitChoice(train=split, val=val_split)
        if val_split is not None:
            message = "--val-split names rows of a manifest; --split makes new splits: give one."
            raise UsageError(message)
        return SplitChoice(fractions=parse_fractions(split))


@dataclass(frozen=True)
class Selection:
    """Patches to train on and to validate on, the classes, and remarks of one sentence each.

    ``class_names`` is empty without labels. ``assigned`` holds every patch with the split it was
    given where splits were made, so that they can be written; else it is empty.
    """

    train: tuple[Patch, ...]
    val: tuple[Patch, ...]
    class_names: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    assigned: tuple[Patch, ...] = ()

    def labels(self, patches: Iterable[Patch]) -> list[int]:
        """The class number of each patch, −1 without a label."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return [-1 if p.label is None else numbers.get(p.label, -1) for p in patches]

    def class_counts(self) -> dict[str, int]:
        """Training patches per class."""
        counts = Counter(patch.label for patch in self.train)
        return {name: counts[name] for name in self.class_names}


def select(
    patches: Sequence[Patch], choice: SplitChoice, *, seed: int, needs_labels: bool
) -> Selection:
    """Split patches into training and validation rows, and check that they can be learnt from.

    Patients never stand on both sides (an unknown patient counts as the source). Without
    ``needs_labels`` (``--loss none``) unlabelled patches stay. Raises InputError where nothing
    is left or fewer than two classes are, UsageError for a split that is not there.
    """
    if not patches:
        message = "There is no image to train on."
        raise InputError(message)
    remarks = []
    usable = [patch for patch in patches if patch.label is not None] if needs_labels else patches
    if not usable:
        message = (
            f"None of the {len(patches)} images has a label: give an ImageFolder, a manifest with "
            "a label column or labelled tile sets, or use --loss none."
        )
        raise InputError(message)
    if len(usable) < len(patches):
        remarks.append(f"{len(patches) - len(usable)} images without a label are left out.")
    train, val, assigned = _split(list(usable), choice, seed)
    names = sorted({patch.label for patch in train if patch.label is not None})
    foreign = [p for p in val if p.label is not None and p.label not in names]
    if foreign:
        classes = ", ".join(sorted({str(patch.label) for patch in foreign}))
        remarks.append(f"No training image has the class {classes} of the validation images.")
        val = [patch for patch in val if patch not in set(foreign)]
    if needs_labels and len(names) < 2:
        message = f"All training images are {names[0]!r}: a loss needs at least two classes."
        raise InputError(message)
    counts = Counter(patch.label for patch in train)
    single = [name for name in names if counts[name] == 1]
    if single and needs_labels:
        listed = ", ".join(single)
        remarks.append(f"Only one training image has the class {listed}: it forms no pair.")
    if needs_labels and not val:
        remarks.append("There are no validation images: the last epoch is kept, not the best.")
    return Selection(tuple(train), tuple(val), tuple(names), tuple(remarks), tuple(assigned))


def _split(
    patches: list[Patch], choice: SplitChoice, seed: int
) -> tuple[list[Patch], list[Patch], list[Patch]]:
    present = {patch.split for patch in patches if patch.split is not None}
    if choice.nothing:
        return patches, _of_split(patches, choice.val, present) if choice.val else [], []
    if choice.fractions is not None:
        return _new_split(patches, choice.fractions, seed)
    own = choice.train or next((name for name in TRAINING_NAMES if name in present), None)
    judge = choice.val or next((name for name in VALIDATION_NAMES if name in present), None)
    if own is not None:
        train = _of_split(patches, own, present)
        if judge is not None and judge != own:
            return train, _of_split(patches, judge, present), []
        return _new_split(train, DEFAULT_FRACTIONS, seed)
    if judge is not None:  # everything that is not held out
        held_out = _of_split(patches, judge, present)
        return [p for p in patches if p.split is None], held_out, []
    return _new_split(patches, DEFAULT_FRACTIONS, seed)


def _of_split(patches: list[Patch], name: str, present: set[str]) -> list[Patch]:
    found = [patch for patch in patches if patch.split == name]
    if not found:
        there = f"there are {', '.join(sorted(present))}" if present else "none has any"
        message = f"No image has the split {name!r}: {there}."
        raise UsageError(message)
    return found


def _new_split(
    patches: list[Patch], fractions: Sequence[float], seed: int
) -> tuple[list[Patch], list[Patch], list[Patch]]:
    owners = {patch.patient or patch.source for patch in patches}
    if len(owners) < len(fractions):  # one slide cannot be on two sides
        return patches, [], []
    names = split_by_patient(patches, fractions, seed)
    assigned = [replace(p, split=name) for p, name in zip(patches, names, strict=True)]
    train = [patch for patch in assigned if patch.split == "train"]
    val = [patch for patch in assigned if patch.split == "val"]
    return train, val, assigned


def write_splits(path: Path, patches: Sequence[Patch]) -> None:
    """Write patches with their splits as a manifest (CSV) that every command reads.

    Of stored features it is a table of labels, as ``train --features --labels`` takes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    stored = any(patch.kind == "features" for patch in patches)
    writer.writerow(_FEATURE_COLUMNS if stored else _PATCH_COLUMNS)
    for patch in patches:
        place = ["", ""] if patch.x < 0 and patch.y < 0 else [patch.x, patch.y]
        known = [patch.source, patch.label or "", patch.patient or "", patch.split or "", *place]
        mpp = "" if patch.slide_mpp is None else repr(patch.slide_mpp)
        writer.writerow(known if stored else [patch.path.absolute(), *known, mpp])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))
