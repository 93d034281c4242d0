"""The picture of a patch: an archived one's thumbnail, or cut again from the image or slide."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from patchknn.archive.rows import Source
from patchknn.archive.snapshot import Shard, Snapshot
from patchknn.datasets.images import PatchReader
from patchknn.datasets.patches import Patch
from patchknn.errors import PatchknnError
from patchknn.files import quickhash, size_and_time

Picture = npt.NDArray[np.uint8]


class PictureFinder:
    """Finds pictures of rows of one snapshot and of patches outside it; keeps slides open.

    ``slides_dir`` is where sources lie now, by name or by file name, if no longer where they were;
    ``default_mpp`` serves slides that say no µm/px.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        slides_dir: Path | None = None,
        *,
        default_mpp: float | None = None,
    ) -> None:
        settings = snapshot.settings
        self._snapshot = snapshot
        self._slides_dir = slides_dir
        crop = snapshot.bundle().description.crop
        self._reader = PatchReader(
            settings.patch_px, settings.mpp, crop=crop, default_mpp=default_mpp
        )
        self._found: dict[str, Path | None] = {}

    def of_row(self, row: int) -> Picture | None:
        """RGB (H, W, 3) uint8 of a global row; None where its source is gone or has changed."""
        shard, local = self._snapshot.shard_of(row)
        thumbnail = shard.thumbnail(local)
        if thumbnail is not None:
            return decode(thumbnail)
        patch = self._patch_of(shard, local)
        return None if patch is None else self.of_patch(patch)

    def of_rows(self, rows: Sequence[int]) -> list[Picture | None]:
        """The same of several rows; neighbours in a slide share their reads."""
        pictures: list[Picture | None] = [None] * len(rows)
        places: list[int] = []
        patches: list[Patch] = []
        for place, row in enumerate(rows):
            shard, local = self._snapshot.shard_of(row)
            if shard.has_thumbnails:
                pictures[place] = self.of_row(row)
            elif (patch := self._patch_of(shard, local)) is not None:
                places.append(place)
                patches.append(patch)
        for place, picture in zip(places, self.of_patches(patches), strict=True):
            pictures[place] = picture
        return pictures

    def _patch_of(self, shard: Shard, local: int) -> Patch | None:
        """A row as a patch of the very file that was embedded; None where that is gone."""
        source = shard.source_record(int(shard.source[local]))
        path = self._locate(source)
        if path is None:
            return None
        x, y = (int(value) for value in shard.coords[local])
        plain = x < 0 and y < 0
        kind: Literal["image", "slide"] = "image" if plain else "slide"
        return Patch(source.name, path, kind, x, y, slide_mpp=source.mpp)

    def of_patch(self, patch: Patch) -> Picture | None:
        """RGB (H, W, 3) uint8 of a patch as the encoder sees it; None where it cannot be read."""
        try:
            return self._reader.read(patch)
        except (PatchknnError, OSError):
            return None

    def of_patches(self, patches: Sequence[Patch]) -> list[Picture | None]:
        """The same of several patches; neighbours in a slide share their reads."""
        read = self._reader.read_all(patches)
        return [one if isinstance(one, np.ndarray) else None for one in read]

    def close(self) -> None:
        """Close the slides."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _locate(self, source: Source) -> Path | None:
        """Where the very file that was embedded lies now."""
        if source.name not in self._found:
            candidates = [Path(source.path)]
            if self._slides_dir is not None:
                names = (source.name, Path(source.path).name)
                candidates = [self._slides_dir / name for name in names] + candidates
            self._found[source.name] = next(
                (path for path in candidates if _is_same_file(path, source)), None
            )
        return self._found[source.name]


def decode(data: bytes) -> Picture | None:
    """An encoded image (JPEG) as RGB (H, W, 3) uint8; None where it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


def _is_same_file(path: Path, source: Source) -> bool:
    try:
        return size_and_time(path)[0] == source.size and quickhash(path) == source.quickhash
    except OSError:
        return False
