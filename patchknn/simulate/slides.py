"""Synthetic H&E slides of several patients, with annotations and a list of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from patchknn.errors import ConflictError, UsageError
from patchknn.files import write_bytes, write_json
from patchknn.simulate.amorphous import background, debris, mucus
from patchknn.simulate.annotations import geojson
from patchknn.simulate.canvas import Site, Stains
from patchknn.simulate.connective import adipose, smooth_muscle, stroma
from patchknn.simulate.epithelium import lymphocytes, normal_mucosa, tumour
from patchknn.simulate.layout import Region, draw_layout
from patchknn.simulate.pyramid import write_pyramid
from patchknn.simulate.stain import Staining, draw_stainings, to_rgb

LIST_NAME = "slides.csv"
_SOFT_EDGE = 1.5

PAINTERS: dict[str, Callable[[Site], Stains]] = {
    "ADI": adipose,
    "BACK": background,
    "DEB": debris,
    "LYM": lymphocytes,
    "MUC": mucus,
    "MUS": smooth_muscle,
    "NORM": normal_mucosa,
    "STR": stroma,
    "TUM": tumour,
}


@dataclass(frozen=True)
class SlideSettings:
    """What to make: ``size_px`` is the level-0 width and height, ``mpp`` its µm per pixel."""

    slides: int = 12
    patients: int = 6
    size_px: int = 2048
    mpp: float = 0.5
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError where these cannot be met."""
        if not 1 <= self.patients <= self.slides:
            message = (
                f"{self.slides} slides cannot be shared by {self.patients} patients: "
                "give at least one patient, and one slide for each."
            )
            raise UsageError(message)
        if self.size_px < 256:
            message = f"--size-px {self.size_px} is too small for nine tissues: give 256 or more."
            raise UsageError(message)


@dataclass(frozen=True)
class SimulatedSlide:
    """One slide written: paths, patient, regions by class, pyramid levels."""

    path: Path
    annotations: Path
    patient: str
    regions: dict[str, int]
    levels: int


def simulate_slides(
    folder: Path, settings: SlideSettings, *, workers: int = 1, replace: bool = False
) -> Iterator[SimulatedSlide]:
    """Write slides, their GeoJSON annotations and ``slides.csv`` into a folder.

    The same settings give the same pixels, however many ``workers`` (threads) draw. The list
    is written last: where it is, everything is. Raises UsageError for settings that cannot be
    met, ConflictError where the folder already holds anything, unless ``replace`` is set.
    """
    settings.check()
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file; name a folder for the slides."
        raise ConflictError(message)
    if not replace and folder.is_dir() and any(folder.iterdir()):
        message = f"{folder} is not empty; give --force to write into it, or another folder."
        raise ConflictError(message)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIST_NAME).unlink(missing_ok=True)
    return _write_all(folder, settings, workers)


def _write_all(folder: Path, settings: SlideSettings, workers: int) -> Iterator[SimulatedSlide]:
    common, *seeds = np.random.SeedSequence(settings.seed).spawn(settings.slides + 1)
    stainings = draw_stainings(settings.patients, np.random.default_rng(common))
    digits = len(str(settings.slides))
    patient_digits = len(str(settings.patients))

    def write(number: int) -> SimulatedSlide:
        patient = number % settings.patients
        name = f"patient{patient + 1:0{patient_digits}}_slide{number + 1:0{digits}}"
        return _write_slide(
            folder / f"{name}.tiff",
            f"P{patient + 1:0{patient_digits}}",
            settings,
            stainings[patient],
            np.random.default_rng(seeds[number]),
        )

    written = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for slide in pool.map(write, range(settings.slides)):
            written.append(slide)
            yield slide
    write_bytes(folder / LIST_NAME, _slide_list(written))


def _write_slide(
    path: Path,
    patient: str,
    settings: SlideSettings,
    staining: Staining,
    rng: np.random.Generator,
) -> SimulatedSlide:
    regions = draw_layout(settings.size_px, settings.mpp, rng)
    annotations = path.with_suffix(".geojson")
    write_json(annotations, geojson(regions, rng))
    image = paint_slide(regions, settings.size_px, settings.mpp, staining, rng)
    levels = write_pyramid(path, image, settings.mpp)
    labels = [region.label for region in regions]
    counts = {label: labels.count(label) for label in sorted(set(labels))}
    return SimulatedSlide(path, annotations, patient, counts, levels)


def paint_slide(
    regions: list[Region],
    size_px: int,
    mpp: float,
    staining: Staining,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Paint regions on glass → (size_px, size_px, 3) uint8."""
    glass = background(Site(size_px, size_px, mpp, rng))
    total_h, total_e = glass.haematoxylin, glass.eosin
    for region in regions:
        left, top = (int(value) for value in np.maximum(region.outline.min(axis=0) - 8, 0))
        right, bottom = (
            int(value) for value in np.minimum(region.outline.max(axis=0) + 8, size_px)
        )
        if right <= left or bottom <= top:
            continue
        site = Site(bottom - top, right - left, mpp, rng)
        stains = PAINTERS[region.label](site)
        # Sections are not equally thick, nor do both dyes take equally everywhere.
        thickness = float(np.exp(rng.normal(0, 0.2)))
        uptake = float(np.exp(rng.normal(0, 0.15)))
        mask = _mask(region, left, top, site)
        box = np.s_[top:bottom, left:right]
        total_h[box] += mask * stains.haematoxylin * np.float32(thickness * uptake)
        total_e[box] += mask * stains.eosin * np.float32(thickness / uptake)
    return to_rgb(Stains(total_h, total_e), staining, rng)


def _mask(region: Region, left: int, top: int, site: Site) -> npt.NDArray[np.float32]:
    image = Image.new("L", (site.width, site.height), 0)
    outline = (region.outline - np.array([left, top])).ravel().tolist()
    ImageDraw.Draw(image).polygon(outline, fill=255)
    soft = image.filter(ImageFilter.GaussianBlur(_SOFT_EDGE))
    return np.asarray(soft, np.float32) / np.float32(255)


def _slide_list(slides: list[SimulatedSlide]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "patient", "annotations"])
    for slide in slides:
        writer.writerow([slide.path.name, slide.patient, slide.annotations.name])
    return text.getvalue().encode()
