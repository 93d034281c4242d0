"""What compressing a slide to a grid costs beside ``embed``, and how much memory a huge one takes.

    python tests/benchmarks/compress.py --quick                 does everything work? a minute
    python tests/benchmarks/compress.py --json FILE --check     everything, and the targets

``embed`` and ``slide compress`` take turns on the same tiles, with the same reader processes. The
huge slide is made in ``--cache``; memory is that of the whole command and its processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import pipeline_embed
from compress_slides import huge
from pipeline_embed import Model
from pipeline_memory import peak
from pipeline_slides import real, simulated
from report import Log, environment, say
from targets import FactTarget, fact_verdicts
from timing import in_turns, quotient

from patchknn.datasets.entries import Entry
from patchknn.datasets.tiles import PatchSettings
from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.encoder.inference import FeatureExtractor
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.remote import RemoteEncoder
from patchknn.jobs.cpus import reader_processes
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide
from patchknn.wholeslide.grids.compress import compress_unit
from patchknn.wholeslide.grids.compress_settings import CompressSettings, GridUnit
from patchknn.wholeslide.grids.grid import open_grid

_PACKAGES = ("torch", "timm", "numpy", "h5py", "Pillow", "openslide-python", "openslide-bin")
_MPP = 0.5
_GIB = 1 << 30
_MEMORY = "memory, a huge slide, GiB"


def main() -> int:
    """Measure; 1 where a target is missed under ``--check``."""
    asked = _arguments()
    threads = limit_threads()
    versions = environment(threads, _PACKAGES)
    say(versions)
    log = Log()
    slides = {"synthetic": simulated(asked.cache, 1024 if asked.quick else 8192)[0]}
    if (one := real()) is not None:
        slides[one.name] = one
    with tempfile.TemporaryDirectory(dir=asked.cache) as place:
        for name, slide in slides.items():
            if "rate" in asked.only:
                _rates(log, name, slide, Path(place), asked)
        if "memory" in asked.only:
            _memory(log, Path(place), asked)
    if asked.json is not None:
        log.write_facts(asked.json)
    if asked.quick:
        return 0
    targets = [
        FactTarget(
            f"slide compress of {name}, patches/s against embed",
            *(f"compress, {name}, against embed", 0.9, "×"),
            at_least=True,
        )
        for name in slides
    ]
    targets.append(
        FactTarget(f"slide compress of {asked.side:,} px², peak memory", _MEMORY, 4, " GiB")
    )
    results = list(fact_verdicts(log, targets))
    say("\n" + "\n".join(str(verdict) for verdict in results) + f"\n\n{versions}")
    return 1 if asked.check and not all(verdict.met for verdict in results) else 0


def _rates(log: Log, name: str, slide: Path, folder: Path, asked: argparse.Namespace) -> None:
    """Patches a second of both, from a tile set to what is on disk."""
    device = choose_device(asked.device)
    model = Model(asked.model, asked.patches, 32, asked.size)
    bundle = pipeline_embed.bundle_of(model, folder)
    extractor = FeatureExtractor.from_bundle(bundle, device)
    tiles = tile_slide(slide, TilingSettings(model.size, mpp=_MPP), name=slide.name)
    count = min(len(tiles), model.patches)
    tileset = folder / f"{name}.h5"
    write_tileset(tileset, replace(tiles, coords=tiles.coords[:count], tissue=tiles.tissue[:count]))
    workers = reader_processes(None, device.type)
    settings = CompressSettings(
        PatchSettings(model.size, _MPP, labels=False),
        ReadSettings(model.size, _MPP, workers=workers),
        RemoteEncoder(
            *(bundle.directory, bundle.fingerprint, asked.device, "float32", 1), apart=True
        ),
        bundle.description.feature_dim,
        model.batch_size,
    )
    grid = folder / "grids" / f"{name}.h5"

    def compress() -> None:
        grid.unlink(missing_ok=True)
        result = compress_unit(GridUnit(Entry(slide.name, tileset, "tileset"), grid, settings))
        assert result.patches == count, result

    compress()  # loads the encoder
    seconds, cpu = in_turns(
        {
            "compress": compress,
            "embed": lambda: pipeline_embed.embed_tiles(
                extractor, bundle, model, tiles=tileset, archive=folder / "archive", workers=workers
            ),
        },
        asked.rounds,
    )
    log.facts[f"compress, {name}, patches"] = count
    log.facts[f"compress, {name}, patches/s"] = count / median(seconds["compress"])
    log.facts[f"embed, {name}, patches/s"] = count / median(seconds["embed"])
    log.facts[f"compress, {name}, against embed"] = quotient(seconds["embed"], seconds["compress"])
    # Where the machine is busy with something else this says more than the clock.
    log.facts[f"compress, {name}, CPU of embed against ours"] = quotient(
        cpu["embed"], cpu["compress"]
    )
    for fact, value in log.facts.items():
        if name in fact:
            say(f"{fact}: {value:.4g}")


def _memory(log: Log, folder: Path, asked: argparse.Namespace) -> None:
    """The most that the command holds, of a slide that is tissue for the most part."""
    began = time.perf_counter()
    slide = huge(asked.cache, asked.side, asked.tissue)
    say(f"{slide}: {slide.stat().st_size / 1e6:.0f} MB, {time.perf_counter() - began:.0f} s")
    model = Model(asked.model, 0, 64, asked.size)
    bundle = pipeline_embed.bundle_of(model, folder)
    grids = folder / "huge"
    command = [
        *(sys.executable, "-m", "patchknn", "slide", "compress", str(slide)),
        *("-e", str(bundle.directory), "-o", str(grids), "--device", asked.device),
        *("--mpp", str(_MPP), "--augment", str(asked.augment)),
    ]
    if asked.stride is not None:
        command += ["--stride", str(asked.stride)]
    began = time.perf_counter()
    most = peak(command)
    seconds = time.perf_counter() - began
    grid = open_grid(grids / f"{slide.stem}.h5")
    count = int(grid.mask.sum())
    log.facts[_MEMORY] = most / _GIB
    log.facts["memory, a huge slide, patches"] = count
    say(
        f"{asked.side} px, grid {grid.features.shape}, {count} patches: {most / _GIB:.2f} GiB, "
        f"{seconds:.0f} s, {count / seconds:.0f} patches/s"
    )
    shutil.rmtree(grids)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="does everything work? small")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, one object")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cache", type=Path, default=Path("compress-benchmark"))
    parser.add_argument("--model", default="resnet18", help="of timm, with random weights")
    parser.add_argument("--size", type=int, default=224, help="patch size in px")
    parser.add_argument("--patches", type=int, default=512, help="at most, to compare rates by")
    parser.add_argument("--side", type=int, default=100_000, help="of the huge slide, in px")
    parser.add_argument("--tissue", type=float, default=0.6, help="share of it that is tissue")
    parser.add_argument("--stride", type=int, help="of the huge slide")
    parser.add_argument("--augment", type=int, choices=(1, 8), default=1, help="of the huge slide")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=("rate", "memory"), help="rate,memory"
    )
    asked = parser.parse_args()
    if asked.quick:
        if asked.check:
            parser.error("--quick is too small to check targets with")
        asked.rounds, asked.patches = min(asked.rounds, 2), min(asked.patches, 16)
        asked.side = min(asked.side, 4096)
    asked.cache.mkdir(parents=True, exist_ok=True)
    return asked


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
