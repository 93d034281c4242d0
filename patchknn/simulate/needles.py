"""Images that hold a small object among clutter, or clutter alone: which, how many, how large.

After Pawlowski et al. 2019, Needles in Haystacks: the label hangs on one object, whose share of
the image is chosen, and clutter is alike in both classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.errors import UsageError
from patchknn.simulate.needle_digits import Digits
from patchknn.simulate.needle_settings import NeedleSettings, Scene
from patchknn.simulate.needle_tissue import Tissue

LABELS = ("clutter", "needle")
_SPLITS = ("train", "val", "test")
_LARGEST_PX = 8192  # more, and Pillow takes a PNG for a decompression bomb
_KINDS: dict[str, type[Digits | Tissue]] = {"digits": Digits, "tissue": Tissue}


class NeedleImage(NamedTuple):
    """One image to be made: its number, whether it holds the needle, its split and patient."""

    number: int
    positive: bool
    split: str
    patient: int

    @property
    def label(self) -> str:
        """``needle`` or ``clutter``."""
        return LABELS[self.positive]


def check_settings(settings: NeedleSettings) -> None:
    """Raise UsageError where settings cannot be met, saying what can."""
    if not 0 < settings.ratio <= 1:
        message = f"--ratio {settings.ratio:g} is no share of an image: give 1% or 0.01, say."
        raise UsageError(message)
    if not 8 <= settings.size_px <= _LARGEST_PX:
        message = f"--size {settings.size_px} is not 8 to {_LARGEST_PX} px."
        raise UsageError(message)
    if settings.images < 2 or settings.images % 2:
        message = (
            f"--images {settings.images} cannot be half with a needle, half without: "
            "give an even number."
        )
        raise UsageError(message)
    least = _KINDS[settings.kind].smallest_px(settings)
    if settings.object_px < least:
        raise UsageError(_too_small(settings, least))
    splits = sum(count > 0 for count in _allot(settings.images // 2, settings.split))
    if settings.kind == "tissue" and settings.patients < splits:
        message = (
            f"--patients {settings.patients} cannot be shared by {splits} splits without a patient "
            f"in common: give {splits} or more."
        )
        raise UsageError(message)
    drawn = _KINDS[settings.kind](settings)
    if drawn.objects > drawn.places:
        message = (
            f"A needle of {settings.object_px} px among such clutter is {drawn.objects} objects, "
            f"and {settings.size_px} px have places for {drawn.places}: "
            "give a smaller --ratio or less --clutter."
        )
        raise UsageError(message)


def _too_small(settings: NeedleSettings, least: int) -> str:
    size = math.ceil((least - 0.5) / math.sqrt(settings.ratio))
    smallest = (least / settings.size_px) ** 2
    remedies = [f"--size {size} or more"] if size <= _LARGEST_PX else []
    remedies += [f"--ratio {100 * smallest:.2g}% or more"] if smallest <= 1 else []
    return (
        f"--ratio {100 * settings.ratio:.3g}% of {settings.size_px} px makes a needle of "
        f"{settings.object_px} px, and one of {settings.kind} needs {least} px: "
        f"give {', or '.join(remedies) or 'a larger --ratio and --size'}."
    )


def objects_of(settings: NeedleSettings) -> int:
    """How many objects every image holds, the needle (or each cell of it) among them."""
    return _KINDS[settings.kind](settings).objects


def plan_images(settings: NeedleSettings) -> list[NeedleImage]:
    """The images of each split in turn, every second with a needle, patients dealt out to splits.

    Each patient has as many images with a needle as without. Raises UsageError where the settings
    cannot be met.
    """
    check_settings(settings)
    pairs = _allot(settings.images // 2, settings.split)
    patients = _allot(settings.patients, settings.split, least=[min(n, 1) for n in pairs])
    images: list[NeedleImage] = []
    first = 0
    for split, count, own in zip(_SPLITS, pairs, patients, strict=False):
        for pair in range(count):
            patient = first + pair % max(own, 1)
            for positive in (False, True):
                images.append(NeedleImage(len(images), positive, split, patient))
        first += own
    return images


def place(settings: NeedleSettings, image: NeedleImage) -> Scene:
    """Where the objects of one image lie, without painting it."""
    drawn = _KINDS[settings.kind](settings)
    return drawn.place(positive=image.positive, rng=_chance(settings, image))


def draw(settings: NeedleSettings, image: NeedleImage) -> tuple[Scene, npt.NDArray[np.uint8]]:
    """One image: where its objects lie, and its pixels.

    These are (size, size) grey of digits and (size, size, 3) of tissue; the same whatever other
    images are drawn, and in whatever order.
    """
    rng = _chance(settings, image)
    drawn = _KINDS[settings.kind](settings)
    scene = drawn.place(positive=image.positive, rng=rng)
    return scene, drawn.paint(scene, image.split, image.patient, rng)


def _chance(settings: NeedleSettings, image: NeedleImage) -> np.random.Generator:
    seeds = np.random.SeedSequence(settings.seed, spawn_key=(image.number,))
    return np.random.default_rng(seeds)


def _allot(total: int, shares: Sequence[float], least: Sequence[int] | None = None) -> list[int]:
    """Whole numbers that add up to ``total`` in these shares, none below its least."""
    wanted = np.asarray(shares, float) / sum(shares) * total
    counts = np.floor(wanted + 1e-9).astype(int)
    for number in np.argsort(counts - wanted, kind="stable")[: total - int(counts.sum())]:
        counts[number] += 1
    for number, floor in enumerate(least or ()):
        if counts[number] < floor:
            counts[int(counts.argmax())] -= floor - counts[number]
            counts[number] = floor
    return [int(count) for count in counts]
