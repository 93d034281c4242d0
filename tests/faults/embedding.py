"""Small images and slides outside of an archive, and the command line that embeds them.

What must be archived of them is known from what is written here, not from what ``embed`` says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from small_archives import SIZE, Labels

_WHOLE = 2 * SIZE  # px of a slide that is tiled: half of it is tissue


class Part(NamedTuple):
    """What ``embed`` takes as a whole: an argument of it, and the rows that come of that."""

    argument: str
    rows: Labels


def image_folder(folder: Path, images: Labels, seed: int) -> Part:
    """Images below folders that are called as their classes, which each of them needs."""
    rows: Labels = {}
    for number, (name, label) in enumerate(images.items()):
        assert label is not None
        _write(folder / label / name, _noise(seed + number))
        rows[f"{label}/{name}"] = label
    return Part(str(folder), rows)


def image_list(folder: Path, images: Labels, seed: int) -> Part:
    """Images under names that a list gives them, with labels and patients."""
    lines = ["path,name,label,patient"]
    for number, (name, label) in enumerate(images.items()):
        file = _write(folder / f"{number}.png", _noise(seed + number))
        lines.append(f"{file.name},{name},{label or ''},P{number}")
    return Part(_list(folder, lines), dict(images))


def listed_slide(folder: Path, name: str, labels: Sequence[str | None], seed: int) -> Part:
    """A slide of which a list names as many tiles as there are labels."""
    file = _write(folder / "slide.png", _noise(seed, width=SIZE * len(labels)))
    lines, rows = ["path,name,x,y,label,patient,mpp"], {}
    for number, label in enumerate(labels):
        lines.append(f"{file.name},{name},{SIZE * number},0,{label or ''},P,0.5")
        rows[f"{name}@{SIZE * number}_0"] = label
    return Part(_list(folder, lines), rows)


def tiled_slide(folder: Path, name: str, label: str | None, seed: int) -> Part:
    """A slide that ``embed`` tiles: of its four tiles the two on the left are tissue."""
    import tifffile

    pixels = np.full((_WHOLE, _WHOLE, 3), 245, np.uint8)
    grain = np.random.default_rng(seed).integers(-30, 30, (_WHOLE, SIZE, 3))
    pixels[:, :SIZE] = np.array([200, 90, 160]) + grain
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "slide.tif", pixels, tile=(SIZE, SIZE), photometric="rgb")
    lines = ["path,name,label,patient,mpp", f"slide.tif,{name},{label or ''},P,0.5"]
    return Part(_list(folder, lines), {f"{name}@0_{y}": label for y in (0, SIZE)})


def command(path: Path, sources: Sequence[str], *options: str) -> list[str]:
    """The arguments of ``patchknn``."""
    encoder = str(path / "encoder")
    where = ["--archive", str(path), "--encoder", encoder, "--device", "cpu", "--workers", "0"]
    return ["embed", *sources, *where, *options]


def summary_of(printed: str) -> Mapping[str, int]:
    """The counts that a command line printed last."""
    told: Mapping[str, int] = json.loads(printed.splitlines()[-1])
    return told


def _noise(seed: int, width: int = SIZE) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, width, 3), np.uint8)


def _write(file: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    """Whole or not at all: another process may be about to read the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    own = file.with_name(f".{os.getpid()}-{file.name}")
    Image.fromarray(pixels).save(own)
    return own.replace(file)


def _list(folder: Path, lines: Sequence[str]) -> str:
    file = folder / "list.csv"
    own = folder / f".{os.getpid()}-list.csv"
    own.write_text("\n".join(lines) + "\n")
    return str(own.replace(file))
