"""Tiling, beside what OpenSlide and Pillow alone need for the same pixels."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import openslide
from PIL import Image
from report import Log
from timing import in_turns, quotient

from patchknn.slides.listing import list_slides
from patchknn.slides.readers import open_slide
from patchknn.slides.tiling import TilingSettings, tile_slide
from patchknn.slides.tissue import MASK_MPP
from patchknn.slides.units import SlideUnit, plan_units, tile_unit

SIZE, TARGET_MPP = 224, 0.5
_BLOCK = 4096
Corner = tuple[int, int]


def median(seconds: list[float]) -> float:
    """The middle one."""
    return sorted(seconds)[len(seconds) // 2]


def units(slides: list[Path], folder: Path, images: str | None, workers: int) -> list[SlideUnit]:
    """As the command makes them."""
    entries = list_slides([str(slide) for slide in slides])
    settings = TilingSettings(size=SIZE, mpp=TARGET_MPP)
    return plan_units(entries, folder, settings, images=images, workers=workers)  # type: ignore[arg-type]


def corners(slide: Path, size: int = SIZE) -> list[Corner]:
    """Of the patches that ``tile`` keeps."""
    tiles = tile_slide(slide, TilingSettings(size=size, mpp=TARGET_MPP), name=slide.name)
    return [(int(x), int(y)) for x, y in tiles.coords]


def tissue_level(slide: Path) -> int:
    """The level that tissue detection reads."""
    with open_slide(slide) as reader:
        return reader.level_for(max(MASK_MPP, reader.require_mpp()))


def read_level(slide: Path, level: int) -> None:
    """A level of a slide by OpenSlide alone, block by block."""
    with openslide.OpenSlide(str(slide)) as opened:
        width, height = opened.level_dimensions[level]
        downsample = opened.level_downsamples[level]
        for y in range(0, height, _BLOCK):
            for x in range(0, width, _BLOCK):
                opened.read_region(
                    (round(x * downsample), round(y * downsample)),
                    level,
                    (min(_BLOCK, width - x), min(_BLOCK, height - y)),
                )


def plain_patches(slide: Path, places: Iterable[Corner]) -> Iterable[tuple[Corner, Image.Image]]:
    """The loop that anyone would write: ``read_region``, ``convert``, ``resize``."""
    with open_slide(slide) as reader:
        level = reader.level_for(TARGET_MPP)
        width = round(SIZE * TARGET_MPP / reader.require_mpp() / reader.level_downsamples[level])
    with openslide.OpenSlide(str(slide)) as opened:
        for corner in places:
            image = opened.read_region(corner, level, (width, width)).convert("RGB")
            if width != SIZE:
                image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            yield corner, image


def in_processes(processes: int, work: Callable[..., Any], tasks: list[Any]) -> None:
    """Each task's arguments to ``work``; the processes have ended when this returns."""
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pool.starmap(work, tasks, chunksize=1)
        pool.close()
        pool.join()


def tissue(log: Log, slides: dict[str, Path], folder: Path, rounds: int, workers: int) -> None:
    """``tile --images none`` against reading the level that tissue detection needs."""
    for name, slide in slides.items():
        unit = units([slide], folder, None, workers)[0]
        alone = replace(unit, threads=1)
        level = tissue_level(slide)

        def made(one: SlideUnit) -> None:
            one.output.unlink(missing_ok=True)
            tile_unit(one)

        command = [sys.executable, "-m", "patchknn", "tile", str(slide), "-o", str(folder / "all")]

        def whole(command: list[str] = command) -> None:
            shutil.rmtree(folder / "all", ignore_errors=True)
            subprocess.run(command, check=True, capture_output=True)

        seconds, cpu = in_turns(
            {
                "reading": lambda slide=slide, level=level: read_level(slide, level),
                "tile": lambda unit=unit: made(unit),
                "tile, one thread": lambda unit=alone: made(unit),
                "tile, whole command": whole,
            },
            rounds,
        )
        for what, values in seconds.items():
            log.facts[f"{what}, {name}, s"] = median(values)
            if what != "reading":
                ratio = quotient(values, seconds["reading"])
                log.facts[f"{what}, {name}, against reading"] = ratio
        used = quotient(cpu["tile, one thread"], cpu["reading"])
        log.facts[f"tile, {name}, CPU seconds against reading"] = used


def pictures(
    log: Log, slides: list[Path], folder: Path, rounds: int, workers: int, *, times: int
) -> None:
    """``tile --images png`` of two slides, by one worker and by all, and the plain loop.

    Each slide comes so many ``times``, that starting processes is no part of what is compared.
    """
    ours, plain = [], []
    for number in map(str, range(times)):
        of_all = units(slides, folder / "ours" / number, "png", len(slides))
        ours += [(unit,) for unit in of_all]
        plain += [(one, corners(one), folder / "plain" / number / one.stem) for one in slides]
    count = sum(len(places) for _, places, _ in plain)

    def by(processes: int, work: Callable[..., None], tasks: list[Any]) -> Callable[[], None]:
        def run() -> None:
            shutil.rmtree(folder / "ours", ignore_errors=True)
            in_processes(processes, work, tasks)

        return run

    seconds, cpu = in_turns(
        {
            "ours": by(workers, _tile, ours),
            "plain": by(workers, _plain_pictures, plain),
            "ours, one worker": by(1, _tile, ours),
            "plain, one process": by(1, _plain_pictures, plain),
        },
        rounds,
    )
    for name, values in seconds.items():
        log.facts[f"tile png, {name}, patches/s"] = count / median(values)
    log.facts["tile png, against a plain loop"] = quotient(seconds["plain"], seconds["ours"])
    log.facts["tile png, CPU seconds of a plain loop against ours"] = quotient(
        cpu["plain"], cpu["ours"]
    )
    log.facts["tile, two workers against one"] = quotient(
        seconds["ours, one worker"], seconds["ours"]
    )
    # What the machine has to give: virtual processors may share a core, or be others' meanwhile.
    log.facts["plain loop, two processes against one"] = quotient(
        seconds["plain, one process"], seconds["plain"]
    )


def _tile(unit: SlideUnit) -> None:
    tile_unit(unit)


def _plain_pictures(slide: Path, places: list[Corner], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for (x, y), image in plain_patches(slide, places):
        image.save(folder / f"{x}_{y}.png")
