"""Which grid a table means by a slide's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from patchknn.errors import ConflictError
from patchknn.slides.listing import stem_of
from patchknn.wholeslide.grids.grid import Grid

Entry = tuple[Path, Grid]


class GridNames:
    """Grids by the names of their slides; ConflictError where two are of one slide."""

    def __init__(self, grids: Sequence[Entry]) -> None:
        self._whole: dict[str, Entry] = {}
        bare: dict[str, list[Entry]] = {}
        for entry in grids:
            name = entry[1].info.name
            other = self._whole.setdefault(stem_of(name), entry)
            if other is not entry:
                message = f"{other[0]} and {entry[0]} are both grids of {name}; remove one of them."
                raise ConflictError(message)
            bare.setdefault(PurePath(stem_of(name)).name, []).append(entry)
        self._bare = {name: found[0] for name, found in bare.items() if len(found) == 1}

    def find(self, name: str) -> Entry | None:
        """The grid of the slide ``name``, with or without its suffix; None where there is none.

        A path finds the grid whose name it ends with; a name without a folder finds one in any
        folder, if there is only one of that name. What lies in another folder is another slide.
        """
        parts = PurePath(stem_of(name)).parts
        for first in range(len(parts)):
            found = self._whole.get("/".join(parts[first:]))
            if found is not None:
                return found
        return self._bare.get(parts[0]) if len(parts) == 1 else None
