"""How much memory reading and inference take, of a slide with few tiles and with many.

    python tests/benchmarks/pipeline_memory.py SLIDE ENCODER TILES    one run, for the other file

Resident memory of this process and all below it; pages that several of them share are counted
once, those of /dev/shm among them. Pages of files, mostly torch's libraries, are left out: how many
of them are counted hangs on what other processes of the machine have them mapped too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from report import Log

if TYPE_CHECKING:
    from patchknn.slides.tileset import TileSet

SIZE, TARGET_MPP, BATCH_SIZE, WORKERS = 32, 0.5, 64, 1
_LOOK_S = 0.1


def growth(log: Log, slide: Path, encoder: Path, tiles: list[int], folder: Path) -> None:
    """Peak memory of the pipeline, and of the whole command, with each number of tiles."""
    for what in ("pipeline", "command"):
        peaks = []
        for count in tiles:
            command = _commands(what, slide, encoder, count, folder)
            began = time.perf_counter()
            peaks.append(peak(command))
            seconds = time.perf_counter() - began
            log.facts[f"memory, {what}, {count} tiles, MB"] = peaks[-1] / 1e6
            log.facts[f"memory, {what}, {count} tiles, s"] = seconds
        log.facts[f"memory, {what}, growth"] = peaks[-1] / peaks[0]


def _commands(what: str, slide: Path, encoder: Path, count: int, folder: Path) -> list[str]:
    if what == "pipeline":
        return [sys.executable, __file__, str(slide), str(encoder), str(count)]
    from dataclasses import replace

    from patchknn.slides.tileset import write_tileset

    tiles = _tiles(slide)
    few = replace(tiles, coords=tiles.coords[:count], tissue=tiles.tissue[:count])
    write_tileset(folder / f"{count}.h5", few)
    archive = folder / f"archive-{count}-{time.time_ns()}"
    return [
        *(sys.executable, "-m", "patchknn", "embed", str(folder / f"{count}.h5")),
        *("-e", str(encoder), "-a", str(archive), "--device", "cpu"),
        *("--workers", str(WORKERS), "--batch-size", str(BATCH_SIZE)),
    ]


def peak(command: list[str]) -> int:
    """The most bytes that a command and its processes held at any time."""
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, sum(_held(pid) for pid in _tree(process.pid)))
            time.sleep(_LOOK_S)
    if process.returncode:
        message = f"{command} failed"
        raise RuntimeError(message)
    return most


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
    return found


def _held(pid: int) -> int:
    """Bytes of a process, its share of what others hold with it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    kilobytes = {words[0]: int(words[1]) for words in map(str.split, lines[1:])}
    return (kilobytes["Pss_Anon:"] + kilobytes["Pss_Shmem:"]) * 1024


def _tiles(slide: Path) -> TileSet:
    from patchknn.slides.tiling import TilingSettings, tile_slide

    return tile_slide(slide, TilingSettings(SIZE, mpp=TARGET_MPP, min_tissue=0), name=slide.name)


def main() -> None:
    """Read and embed so many tiles of a slide, and keep nothing."""
    import torch

    from patchknn.bundle import load_bundle
    from patchknn.datasets.patches import Patch
    from patchknn.encoder.devices import limit_threads
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.indexing.features import embed_batches
    from patchknn.indexing.reading import ReadSettings

    slide, encoder, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    limit_threads()
    extractor = FeatureExtractor.from_bundle(load_bundle(encoder), torch.device("cpu"))
    coords = _tiles(slide).coords[:count]
    patches = (Patch(slide.name, slide, "slide", int(x), int(y)) for x, y in coords)
    batches = iter(lambda: list(islice(patches, BATCH_SIZE)), [])
    settings = ReadSettings(SIZE, TARGET_MPP, workers=WORKERS)
    embedded = sum(len(batch.features) for batch in embed_batches(batches, extractor, settings))
    assert embedded == count, (embedded, count)


if __name__ == "__main__":
    main()
