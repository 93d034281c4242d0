"""Answers to the tiles of slides, gathered slide by slide to be put back on each slide."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.errors import PatchknnError
from patchknn.search.answers import Answer
from patchknn.slides.readers import open_slide

_MOST_TILES = 1_000_000  # of slides that may go on, at some 90 bytes
_MOST_BYTES = 200  # of a part of a file's name; 255 is what file systems take
_UNSAFE = re.compile(r'[\\:*?"<>|\x00-\x1f\x7f]+')


class SlideTiles(NamedTuple):
    """The answered tiles of one slide, squares of ``side`` level-0 pixels, in the queries' order.

    ``coords`` (n, 2) int64: level-0 top left x, y. ``prediction`` (n,) int32 counts into
    ``classes``, −1 for none. ``confidence`` and ``weighted`` (n,) float64 in [0, 1], ``distance``
    (n,) float64 (L2 to the nearest neighbour): NaN for none. ``radius`` (n,) int64 in bits, −1 for
    none; ``ball`` (n,) int64 rows; ``review`` (n,) bool: marked for review. ``calibrated`` (n,)
    float64 and ``strange`` (n,) bool, like nothing in the archive, are None where that was not
    asked. ``mpp`` is the slide's level-0 µm/px where that is known.
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    side: float
    mpp: float | None
    coords: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float64]
    weighted: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]
    radius: npt.NDArray[np.int64]
    ball: npt.NDArray[np.int64]
    review: npt.NDArray[np.bool_]
    calibrated: npt.NDArray[np.float64] | None = None
    strange: npt.NDArray[np.bool_] | None = None

    @property
    def sureness(self) -> npt.NDArray[np.float64]:
        """The calibrated confidence (n,) where that was asked for, else the share of votes."""
        return self.confidence if self.calibrated is None else self.calibrated


SlideWriter = Callable[[Path, SlideTiles], None]


class SlideAnswers:
    """Takes answers one by one, and has each slide's written below folders.

    ``outputs`` are (folder, suffix, writer): slide ``a/b.svs`` goes to ``folder/a/b.svs`` +
    suffix. Rows of a manifest may go from slide to slide and back: slides wait for their end, the
    one that had none for longest is written when a million tiles wait. ``ignored`` counts answers
    to what is no tile of a slide; ``problems`` are sentences of what could not be written;
    ``written`` are the files.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        outputs: Sequence[tuple[Path, str, SlideWriter]],
        *,
        default_mpp: float | None = None,
    ) -> None:
        self.ignored = 0
        self.problems: list[str] = []
        self.written: list[Path] = []
        self._outputs = outputs
        self._default_mpp = default_mpp
        self._settings = snapshot.settings
        self._classes = snapshot.classes
        self._numbers = {name: number for number, name in enumerate(snapshot.classes)}
        self._waiting: dict[tuple[str, Path], _Columns] = {}
        self._count = 0
        self._taken: set[Path] = set()

    def add(self, patch: Patch | None, answer: Answer) -> None:
        """Take the answer to a query; ``patch`` None where it was not made from an image."""
        if patch is None or patch.kind != "slide":
            self.ignored += 1
            return
        key = (patch.source, patch.path)
        columns = self._waiting.pop(key, None) or _Columns(patch.slide_mpp)
        self._waiting[key] = columns  # the last one that was added to stands last
        columns.add(patch, answer, self._numbers.get(answer.prediction or "", -1))
        self._count += 1
        while self._count > _MOST_TILES and len(self._waiting) > 1:
            self._write(next(iter(self._waiting)))

    def finish(self) -> None:
        """Write what still waits."""
        for key in list(self._waiting):
            self._write(key)

    def _write(self, key: tuple[str, Path]) -> None:
        columns = self._waiting.pop(key)
        self._count -= len(columns)
        try:
            tiles = self._tiles(*key, columns)
            for folder, suffix, writer in self._outputs:
                path = self._free(folder, tiles.name, suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                writer(path, tiles)
                self.written.append(path)
        except PatchknnError as error:
            self.problems.append(f"{key[0]} is not put back on its slide: {error}")

    def _free(self, folder: Path, name: str, suffix: str) -> Path:
        stem = folder / file_stem(name)
        path, number = stem.with_name(f"{stem.name}{suffix}"), 1
        while path in self._taken:
            number += 1
            path = stem.with_name(f"{stem.name}-{number}{suffix}")
        if number > 1:
            self.problems.append(
                f"{name} was given more than once; what came later is {path}: give each slide one "
                "name, and its tiles together."
            )
        self._taken.add(path)
        return path

    def _tiles(self, name: str, path: Path, columns: _Columns) -> SlideTiles:
        mpp, settings = columns.mpp, self._settings
        if mpp is None:
            with open_slide(path, default_mpp=self._default_mpp) as slide:
                mpp = slide.mpp if settings.mpp is None else slide.require_mpp()
        # Without a resolution of its own an archive takes pixels of level 0 as they are.
        ratio = 1.0 if settings.mpp is None or mpp is None else settings.mpp / mpp
        return columns.tiles(name, path, self._classes, settings.patch_px * ratio, mpp)


class _Columns:
    def __init__(self, mpp: float | None) -> None:
        self.mpp = mpp
        self._calibrated = False
        self._whole = array("q")
        self._fractions = array("d")

    def __len__(self) -> int:
        return len(self._whole) // 7

    def add(self, patch: Patch, answer: Answer, prediction: int) -> None:
        radius = -1 if answer.radius is None else answer.radius
        judged = answer.judgement
        self._calibrated = self._calibrated or judged is not None
        strange = judged is not None and judged.out_of_distribution
        flags = (int(answer.abstained), int(strange))
        self._whole.extend((patch.x, patch.y, prediction, radius, answer.ball, *flags))
        nearest = answer.neighbours[0].l2 if answer.neighbours else None
        values = (answer.confidence, answer.weighted_confidence, nearest, answer.sureness)
        self._fractions.extend(float("nan") if value is None else value for value in values)

    def tiles(
        self, name: str, path: Path, classes: tuple[str, ...], side: float, mpp: float | None
    ) -> SlideTiles:
        whole = np.array(self._whole, np.int64).reshape(-1, 7)
        fractions = np.array(self._fractions, np.float64).reshape(-1, 4)
        return SlideTiles(
            name=name,
            path=path,
            classes=classes,
            side=side,
            mpp=mpp,
            coords=whole[:, :2],
            prediction=whole[:, 2].astype(np.int32),
            confidence=fractions[:, 0],
            weighted=fractions[:, 1],
            distance=fractions[:, 2],
            radius=whole[:, 3],
            ball=whole[:, 4],
            review=whole[:, 5] > 0,
            calibrated=fractions[:, 3] if self._calibrated else None,
            strange=whole[:, 6] > 0 if self._calibrated else None,
        )


def file_stem(name: str) -> Path:
    """A slide's name as a relative path that stays below its folder, on any system.

    Names as they usually are stay as they are; of others a few hexadecimal digits tell apart what
    would be called alike.
    """
    parts = [part for part in name.split("/") if part not in {"", ".", ".."}]
    safe = [_UNSAFE.sub("_", part.encode(errors="replace").decode()) for part in parts] or ["_"]
    short = [part.encode()[:_MOST_BYTES].decode(errors="ignore") for part in safe]
    if "/".join(short) != name:
        mark = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
        short[-1] = f"{short[-1]}-{mark}"
    return Path(*short)
