"""One query on its way from the command line to its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchknn.files import quickhash
from patchknn.search.answers import Failure
from patchknn.search.query import Query

if TYPE_CHECKING:
    from patchknn.datasets.patches import Patch


@dataclass(frozen=True)
class Asked:
    """One query on its way, and where its picture comes from.

    ``content`` is a short fingerprint of the file that it was made from, None for stored rows.
    """

    query: Query | Failure
    content: str | None = None
    patch: Patch | None = None


@dataclass(frozen=True)
class ImageSettings:
    """How images become features: µm/px of plain images, of slides, of slides without any."""

    encoder: Path | None
    image_mpp: float | None
    slide_mpp: float | None
    default_mpp: float | None
    slides_dir: Path | None
    patient: str | None
    batch_size: int
    workers: int | None
    device: str | None


Skip = Callable[[str, str | None], bool]


def fingerprint(path: Path) -> str | None:
    """The quickhash of a file in hex, None where it cannot be read."""
    try:
        return quickhash(path).hex()
    except OSError:
        return None
