"""A table of corrected labels: id, label, and maybe by whom and why."""

from __future__ import annotations

from pathlib import Path

from patchknn.archive.relabel import Correction
from patchknn.errors import InputError
from patchknn.tables import read_table


def read_corrections(
    path: Path, *, by: str | None = None, reason: str | None = None
) -> dict[str, Correction]:
    """Corrections by patch id; ``by`` and ``reason`` stand where a row has none of its own.

    An empty label means none. Raises InputError where a row has no id, or two rows disagree.
    """
    table = read_table(path, required=["id", "label"])
    found: dict[str, Correction] = {}
    lines: dict[str, int] = {}
    for line, row in zip(table.lines, table.rows, strict=True):
        identity = row["id"]
        if identity is None:
            message = f"{path}, line {line}: the id is empty."
            raise InputError(message)
        correction = Correction(row["label"], row.get("by") or by, row.get("reason") or reason)
        other = found.setdefault(identity, correction)
        first = lines.setdefault(identity, line)
        if other.label != correction.label:
            message = (
                f"{path}: {identity} is {other.label or 'without a label'} in line {first} and "
                f"{correction.label or 'without a label'} in line {line}; keep one of them."
            )
            raise InputError(message)
    return found
