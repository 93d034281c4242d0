"""A table beside the figures, whatever it is of: as NDJSON, on a terminal or as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Section(NamedTuple):
    """``rows`` under ``key``, with ``columns`` to be shown under a ``title``.

    A row may have ``intervals`` of its figures, as an evaluation has, beside its columns.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[dict[str, Any]]
