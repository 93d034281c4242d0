"""What tiling and embedding cost, beside OpenSlide, Pillow and timm alone, and beside peers.

    python tests/benchmarks/pipeline.py --quick                 does everything work? minutes
    python tests/benchmarks/pipeline.py --json FILE --check     everything, and the targets

Synthetic slides are made in ``--cache``, which takes minutes once; with ``PATCHKNN_DATA`` a real
one is measured too. What is compared takes turns in one run. ``--only tile,embed,…`` measures some
of it, ``--tiatoolbox PYTHON`` names an interpreter that has tiatoolbox.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import pipeline_embed
import pipeline_memory
import pipeline_peers
import pipeline_tile
from pipeline_embed import Model
from pipeline_slides import as_scanned, real, simulated
from report import Log, environment, say
from targets import fact_verdicts, pipeline_targets

from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.jobs.cpus import available_cpus

_PACKAGES = ("torch", "timm", "numpy", "Pillow", "openslide-python", "openslide-bin")
_PARTS = ("tile", "png", "embed", "reading", "memory", "peers")
_LONG_S = 0.1  # a shorter reading is less than opening a slide and writing its tile set
_MODELS = (
    Model("resnet18", 126, 64),
    Model("resnet50", 64, 32),
    Model("vit_small_patch16_224", 64, 32),
)


class Spoken(dict[str, float]):
    """Figures that are said as soon as they are known: some take minutes."""

    def __setitem__(self, name: str, value: float) -> None:
        super().__setitem__(name, value)
        say(f"{name}: {value:.4g}")


def main() -> int:
    """Measure; 1 where a target is missed under ``--check``."""
    asked = _arguments()
    cpus = available_cpus()
    threads = limit_threads()
    device = choose_device(asked.device)
    versions = environment(threads, _PACKAGES)
    say(versions)
    log = Log()
    log.facts = Spoken()
    cache: Path = asked.cache
    large, small = (4096, 1024) if asked.quick else (24576, 4096)
    big = simulated(cache, large)[0]
    pair = simulated(cache, small, 2)
    slides = {"synthetic": big, "synthetic, levels by four": as_scanned(big)}
    if (one := real()) is not None:
        slides[one.name] = one
    with tempfile.TemporaryDirectory(dir=cache) as place:
        folder = Path(place)
        if "tile" in asked.only:
            pipeline_tile.tissue(log, slides, folder, asked.rounds, cpus)
        if "png" in asked.only:
            times = 1 if asked.quick else 4
            both = min(cpus, 2)
            pipeline_tile.pictures(log, pair, folder, asked.rounds, both, times=times)
        if "embed" in asked.only:
            models = [Model(one.name, 8, 4) if asked.quick else one for one in _MODELS]
            rounds = min(asked.rounds, 5)
            pipeline_embed.rates(log, pair[0], models, folder=folder, device=device, rounds=rounds)
        if "reading" in asked.only:
            pipeline_embed.reading(log, pair[0], 1 if asked.quick else 32, asked.rounds)
        if "memory" in asked.only:
            encoder = Model("test_resnet", 0, 64, pipeline_memory.SIZE)
            pipeline_embed.bundle_of(encoder, folder)
            tiles = [100, 1000] if asked.quick else [1000, 100_000]
            bundle = folder / f"{encoder.name}-{encoder.size}"
            pipeline_memory.growth(log, big, bundle, tiles, folder)
        if "peers" in asked.only:
            others = {"synthetic": pair[0]}
            if one is not None:
                others[one.name] = one
            pipeline_peers.peers(log, others, asked.tiatoolbox, min(asked.rounds, 5))
    if asked.json is not None:
        log.write_facts(asked.json)
    if asked.quick:
        return 0
    long = {name: log.facts.get(f"reading, {name}, s", 1) >= _LONG_S for name in slides}
    scaling = log.facts.get("plain loop, two processes against one", 0)
    targets = pipeline_targets(long, [one.name for one in _MODELS], scaling)
    results = list(fact_verdicts(log, targets))
    say("\n" + "\n".join(str(verdict) for verdict in results) + f"\n\n{versions}")
    return 1 if asked.check and not all(verdict.met for verdict in results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="does everything work? small")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, one object")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cache", type=Path, default=Path("pipeline-benchmark"))
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=_PARTS, help=",".join(_PARTS)
    )
    parser.add_argument("--tiatoolbox", metavar="PYTHON", help="an interpreter that has it")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds = min(asked.rounds, 2)
        if asked.check:
            parser.error("--quick is too small to check targets with")
    asked.cache.mkdir(parents=True, exist_ok=True)
    return asked


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
