"""The same patches by others: an extraction as CLAM describes it, and tiatoolbox where it is.

CLAM (Lu et al. 2021): a small level in HSV, the saturation blurred by a median and cut at a
threshold, closed; contours of enough area are kept, with their holes; a grid of patches within
each, kept where one of four points around the centre lies inside; each patch is then read by
itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image, ImageFilter
from pipeline_tile import SIZE, TARGET_MPP, Corner, median
from report import Log, say
from timing import in_turns, quotient

from patchknn.slides.readers import open_slide
from patchknn.slides.tiling import TilingSettings, tile_slide

_CELL_UM = 16.0  # of the grid on which covered tissue is compared
_SATURATED = 8
_LEAST_DOWNSAMPLE = 16
_CLOSED_PX, _BLURRED_PX = 5, 7
_LEAST_TILES = 16  # area of a contour, in patches at the mask's level over 16
_ASIDE = "pipeline_tiatoolbox.py"
Coords = npt.NDArray[np.int64]


def peers(log: Log, slides: dict[str, Path], tiatoolbox: str | None, rounds: int) -> None:
    """Patches a second, one process each, and how far the tissue that is covered agrees."""
    for name, slide in slides.items():
        found: dict[str, Coords] = {}
        seconds, cpu = in_turns(
            {
                "patchknn": lambda s=slide, f=found: f.update(ours=_ours(s)),
                "CLAM-like": lambda s=slide, f=found: f.update(clam=clam_like(s)),
            },
            rounds,
        )
        rates = {"patchknn": "ours", "CLAM-like": "clam"}
        for who, key in rates.items():
            log.facts[f"peers, {name}, {who}, patches"] = len(found[key])
            log.facts[f"peers, {name}, {who}, patches/s"] = len(found[key]) / median(seconds[who])
        per_patch = quotient(seconds["CLAM-like"], seconds["patchknn"])
        per_cpu = quotient(cpu["CLAM-like"], cpu["patchknn"])
        share = len(found["ours"]) / max(len(found["clam"]), 1)
        log.facts[f"peers, {name}, patchknn against CLAM-like, patches/s"] = per_patch * share
        log.facts[f"peers, {name}, patchknn against CLAM-like, per CPU second"] = per_cpu * share
        log.facts[f"peers, {name}, CLAM-like, IoU"] = agreement(slide, found["ours"], found["clam"])
        theirs = _tiatoolbox(slide, tiatoolbox)
        if theirs is None:
            continue
        coords = np.array(theirs["coords"], np.int64).reshape(-1, 2)
        began = time.perf_counter()
        _ours(slide)
        rate = len(found["ours"]) / (time.perf_counter() - began)
        log.facts[f"peers, {name}, tiatoolbox, patches"] = len(coords)
        log.facts[f"peers, {name}, tiatoolbox, patches/s"] = len(coords) / theirs["seconds"]
        log.facts[f"peers, {name}, patchknn against tiatoolbox, patches/s"] = (
            rate * theirs["seconds"] / max(len(coords), 1)
        )
        log.facts[f"peers, {name}, tiatoolbox, IoU"] = agreement(slide, found["ours"], coords)


def _ours(slide: Path) -> Coords:
    tiles = tile_slide(slide, TilingSettings(SIZE, mpp=TARGET_MPP), name=slide.name)
    places = [(int(x), int(y)) for x, y in tiles.coords]
    with open_slide(slide) as reader:
        for _ in reader.read_patches(places, SIZE, TARGET_MPP):
            pass
    return tiles.coords


def clam_like(slide: Path) -> Coords:
    """Level-0 corners of the patches, each of which was read."""
    with open_slide(slide) as reader:
        mpp, level = reader.require_mpp(), reader.level_for(TARGET_MPP)
    with openslide.OpenSlide(str(slide)) as opened:
        small = opened.get_best_level_for_downsample(64)
        downsample = opened.level_downsamples[small]
        overview = opened.read_region((0, 0), small, opened.level_dimensions[small])
        if (factor := int(_LEAST_DOWNSAMPLE // downsample)) > 1:  # Pillow's median is no OpenCV's
            overview, downsample = overview.convert("RGB").reduce(factor), downsample * factor
        step = SIZE * TARGET_MPP / mpp
        places = _inside(_contours(overview, step / downsample), downsample, step)
        width = round(step / opened.level_downsamples[level])
        for x, y in places:
            image = opened.read_region((x, y), level, (width, width)).convert("RGB")
            if width != SIZE:
                image = image.resize((SIZE, SIZE))
            np.asarray(image)
    return np.array(places, np.int64).reshape(-1, 2)


def _contours(overview: Image.Image, patch: float) -> list[npt.NDArray[np.bool_]]:
    """Each piece of tissue by itself, (H, W) bool."""
    from skimage.measure import label, regionprops

    saturation = overview.convert("RGB").convert("HSV").getchannel(1)
    blurred = np.asarray(saturation.filter(ImageFilter.MedianFilter(_BLURRED_PX)))
    mask = Image.fromarray((blurred > _SATURATED).astype(np.uint8) * 255)
    closed = mask.filter(ImageFilter.MaxFilter(_CLOSED_PX)).filter(
        ImageFilter.MinFilter(_CLOSED_PX)
    )
    pieces = label(np.asarray(closed) > 0)
    least = _LEAST_TILES * patch**2 / 16
    return [pieces == piece.label for piece in regionprops(pieces) if piece.area >= least]


def _inside(pieces: list[npt.NDArray[np.bool_]], downsample: float, step: float) -> list[Corner]:
    places: list[Corner] = []
    for piece in pieces:
        rows, columns = np.nonzero(piece)
        height, width = piece.shape
        left, top = columns.min() * downsample, rows.min() * downsample
        right, bottom = columns.max() * downsample, rows.max() * downsample
        quarter = step / 4
        for y in np.arange(top, bottom, step):
            for x in np.arange(left, right, step):
                middle = (x + step / 2, y + step / 2)
                for dx, dy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
                    column = int((middle[0] + dx * quarter) / downsample)
                    row = int((middle[1] + dy * quarter) / downsample)
                    if 0 <= row < height and 0 <= column < width and piece[row, column]:
                        places.append((int(x), int(y)))
                        break
    return places


def agreement(slide: Path, first: Coords, second: Coords) -> float:
    """Intersection over union of the area that two sets of patches cover, on a common grid."""
    one, two = (_covered(slide, coords) for coords in (first, second))
    union = (one | two).sum()
    return float((one & two).sum() / union) if union else 1.0


def _covered(slide: Path, coords: Coords) -> npt.NDArray[np.bool_]:
    with open_slide(slide) as reader:
        mpp, (width, height) = reader.require_mpp(), reader.dimensions
    cell, side = _CELL_UM / mpp, SIZE * TARGET_MPP / mpp
    covered = np.zeros((int(np.ceil(height / cell)), int(np.ceil(width / cell))), bool)
    for x, y in coords.tolist():
        left, top = round(max(x, 0) / cell), round(max(y, 0) / cell)
        covered[top : round((y + side) / cell), left : round((x + side) / cell)] = True
    return covered


def _tiatoolbox(slide: Path, python: str | None) -> dict | None:
    if python is None:
        say("tiatoolbox: skipped; --tiatoolbox PYTHON names an interpreter that has it.")
        return None
    script = str(Path(__file__).with_name(_ASIDE))
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    with open_slide(slide) as reader:
        arguments = [python, script, str(slide), str(SIZE), str(TARGET_MPP), str(reader.mpp)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        say(f"tiatoolbox: skipped for {slide.name}: {last}")
        return None
    return json.loads(done.stdout.splitlines()[-1])
