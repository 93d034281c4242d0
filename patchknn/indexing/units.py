"""Units of work: a slide, or a block of plain images; what one process does as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from patchknn.datasets.entries import Entry
from patchknn.datasets.patches import Problem

BLOCK = 512
"""Plain images in one unit: enough to fill batches, few enough to share among processes."""


@dataclass(frozen=True)
class WorkUnit:
    """One slide, or up to ``BLOCK`` images; ``name`` is the same in every process."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def is_slide(self) -> bool:
        """Whether its patches make one source, to be archived as a whole or not at all."""
        return self.entries[0].kind != "image"


def iter_units(
    items: Iterable[Entry | Problem], block: int = BLOCK
) -> Iterator[WorkUnit | Problem]:
    """Units in the order of the entries; images are gathered into blocks as they come.

    The same list gives the same blocks in every process, whatever was done before.
    """
    images: list[Entry] = []
    for item in items:
        if isinstance(item, Problem):
            yield item
        elif item.kind == "image":
            images.append(item)
            if len(images) == block:
                yield _block(images)
                images = []
        else:
            yield WorkUnit(item.name, (item,))
    if images:
        yield _block(images)


def _block(images: list[Entry]) -> WorkUnit:
    digest = hashlib.blake2b(digest_size=12)
    for entry in images:
        digest.update(f"{entry.name}\0{entry.path}\0".encode(errors="surrogateescape"))
    return WorkUnit(f"images-{digest.hexdigest()}", tuple(images))
