"""Units of work: a slide, or a block of plain images; what one process does as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from patchknn.datasets.entries import Entry
from patchknn.datasets.patches import Problem
from patchknn.slides.pixels import file_size

# In a tile set its corner, tissue and label; in a slide its JPEG.
_BYTES_OF_A_PATCH = {"tileset": 40, "slide": 20_000, "rows": 20_000, "image": 20_000}

_IMAGES = "images-"

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
    items: Iterable[Entry | Problem],
    listed: Callable[[list[str]], None] = lambda _: None,
    block: int = BLOCK,
) -> Iterator[WorkUnit | Problem]:
    """Units: images in blocks as they come, then slides and tile sets, the largest first.

    The same list gives the same blocks in every process, whatever was done before. ``listed`` is
    given the names of all of them once they are known: of slides alone, before the first.
    """
    names: list[str] = []
    images: list[Entry] = []
    slides: list[WorkUnit] = []
    for item in items:
        if isinstance(item, Problem):
            yield item
        elif item.kind != "image":
            slides.append(WorkUnit(item.name, (item,)))
        else:
            images.append(item)
            if len(images) == block:
                unit, images = _block(images), []
                names.append(unit.name)
                yield unit
    rest = [_block(images)] if images else []
    # What is begun last should be small: the others have ended by then, and wait for it.
    slides.sort(key=lambda unit: -about_patches(unit.entries[0]))
    left = [*rest, *slides]
    listed([*names, *(unit.name for unit in left)])
    yield from left


def is_block(name: str) -> bool:
    """Whether a unit of that name is a block of images."""
    return name.startswith(_IMAGES)


def about_patches(entry: Entry) -> float:
    """About how many patches a slide has, from what is known without opening it."""
    return len(entry.rows) or file_size(entry.path) / _BYTES_OF_A_PATCH[entry.kind]


def _block(images: list[Entry]) -> WorkUnit:
    digest = hashlib.blake2b(digest_size=12)
    for entry in images:
        digest.update(f"{entry.name}\0{entry.path}\0".encode(errors="surrogateescape"))
    return WorkUnit(f"{_IMAGES}{digest.hexdigest()}", tuple(images))
