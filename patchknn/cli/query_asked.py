"""One query on its way from the command line to its answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.files import quickhash
from patchknn.search.answers import Failure
from patchknn.search.query import Query

if TYPE_CHECKING:
    from patchknn.datasets.patches import Patch
    from patchknn.jobs.cluster import Cluster


class Asked(NamedTuple):
    """One query on its way, and where its picture comes from.

    ``content`` is a short fingerprint of the file that it was made from, None for stored rows.
    """

    query: Query | Failure
    content: str | None = None
    patch: Patch | None = None


class ImageSettings(NamedTuple):
    """How images become features: µm/px of plain images, of slides, of slides without any.

    ``cluster``: its workers do it.
    """

    encoder: Path | None = None
    image_mpp: float | None = None
    slide_mpp: float | None = None
    default_mpp: float | None = None
    slides_dir: Path | None = None
    patient: str | None = None
    batch_size: int = 64
    workers: int | None = None
    device: str | None = None
    cluster: Cluster | None = None


Skip = Callable[[str, str | None], bool]


def fingerprint(path: Path) -> str | None:
    """The quickhash of a file in hex, None where it cannot be read."""
    try:
        return quickhash(path).hex()
    except OSError:
        return None
