"""A folder of images with and without a needle, and the manifest that lists them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchknn.errors import ConflictError
from patchknn.files import read_json, replaced_atomically, write_bytes, write_json
from patchknn.simulate.needle_settings import NeedleSettings, Scene
from patchknn.simulate.needles import NeedleImage, draw, objects_of, place, plan_images

MANIFEST_NAME = "manifest.csv"
SETTINGS_NAME = "needles.json"
_FORMAT_VERSION = 1


def image_path(image: NeedleImage) -> str:
    """Where an image lies in the folder: ``SPLIT/LABEL/NUMBER.png``."""
    return f"{image.split}/{image.label}/{image.number:06}.png"


def simulate_needles(
    folder: Path, settings: NeedleSettings, *, workers: int = 1
) -> Iterator[NeedleImage]:
    """Write PNGs, ``needles.json`` (the settings) and ``manifest.csv`` into a folder.

    Images are yielded in order as they are there; those of an earlier run with the same settings
    are kept. Each of ``workers`` threads holds one canvas, and settings alone decide the pixels.
    The manifest is written last: where it is, everything is. Raises UsageError for settings that
    cannot be met, ConflictError where the folder holds anything else or images of other settings.
    """
    images = plan_images(settings)
    _take_folder(folder, settings)
    return _write_all(folder, settings, images, max(workers, 1))


def _take_folder(folder: Path, settings: NeedleSettings) -> None:
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file; name a folder for the images."
        raise ConflictError(message)
    record = folder / SETTINGS_NAME
    wanted = {"format_version": _FORMAT_VERSION, **asdict(settings), "split": list(settings.split)}
    if record.exists():
        _compare(folder, read_json(record), wanted)
        return
    if folder.is_dir() and any(folder.iterdir()):
        message = f"{folder} is not empty and holds no images of this command; name another folder."
        raise ConflictError(message)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted)


def _compare(folder: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if there.get(name) != value:
            message = (
                f"{folder} holds images of other settings ({name} is {there.get(name)}, "
                f"not {value}): name another folder, or delete it."
            )
            raise ConflictError(message)


def _write_all(
    folder: Path, settings: NeedleSettings, images: list[NeedleImage], workers: int
) -> Iterator[NeedleImage]:
    for place_of in sorted({Path(image_path(image)).parent for image in images}):
        (folder / place_of).mkdir(parents=True, exist_ok=True)

    def write(image: NeedleImage) -> Scene:
        path = folder / image_path(image)
        if path.exists():  # it appeared whole
            return place(settings, image)
        scene, pixels = draw(settings, image)
        _write_png(path, pixels)
        return scene

    scenes: list[Scene] = []
    pool = ThreadPoolExecutor(workers)
    try:
        for image, scene in zip(images, pool.map(write, images), strict=True):
            scenes.append(scene._replace(points=scene.points[:0]))  # of use to nobody from here on
            yield image
    finally:  # a signal ends it after the images in hand
        pool.shutdown(cancel_futures=True)
    write_bytes(folder / MANIFEST_NAME, _manifest(settings, images, scenes))


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    with replaced_atomically(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=3)


def _manifest(settings: NeedleSettings, images: list[NeedleImage], scenes: list[Scene]) -> bytes:
    """CSV; ``needle_x``, ``needle_y`` and ``needle_px`` are the needle's box in pixels.

    Not ``x`` and ``y``, which in a manifest make a row a patch of a slide. Each image of digits
    is a patient of its own.
    """
    tissue = settings.kind == "tissue"
    columns = ["path", "label", "patient", "split", "needle_x", "needle_y", "needle_px", "objects"]
    objects = objects_of(settings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(["mpp"] if tissue else [])])
    for image, scene in zip(images, scenes, strict=True):
        patient = f"P{(image.patient if tissue else image.number) + 1}"
        box = ["", "", ""] if scene.needle is None else [*scene.needle, settings.object_px]
        row = [image_path(image), image.label, patient, image.split, *box, objects]
        writer.writerow([*row, *([settings.mpp] if tissue else [])])
    return text.getvalue().encode()
