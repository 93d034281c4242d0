"""Embedding, beside the bare forward pass of timm and a plain loop that reads the same patches."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from pipeline_tile import (
    SIZE,
    TARGET_MPP,
    Corner,
    corners,
    in_processes,
    median,
    plain_patches,
)
from report import Log
from timing import in_turns, quotient

from patchknn.archive.create import create_archive
from patchknn.bundle import Bundle, load_bundle
from patchknn.datasets.patches import Patch
from patchknn.datasets.tiles import PatchSettings
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.pending import Pending
from patchknn.encoder.saving import save_encoder
from patchknn.indexing.build import ArchiveBuild, BuildSettings, Report
from patchknn.indexing.features import embed_batches
from patchknn.indexing.local import LocalEmbedding
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.work import EmbeddingSettings
from patchknn.jobs.cpus import reader_processes
from patchknn.slides.tileset import write_tileset
from patchknn.slides.tiling import TilingSettings, tile_slide

_BITS = 64


@dataclass(frozen=True)
class Model:
    """A network of timm, and of how many patches its rate is measured."""

    name: str
    patches: int
    batch_size: int
    size: int = SIZE


def bundle_of(model: Model, folder: Path) -> Bundle:
    """An encoder bundle with weights left to chance; written where it is not there."""
    place = folder / f"{model.name}-{model.size}"
    if not place.exists():
        torch.manual_seed(0)
        backbone = create_backbone(model.name, input_size=model.size)
        network = EncoderNetwork(backbone.module, backbone.feature_dim, _BITS, ())
        save_encoder(
            *(place, network, backbone),
            input_size=model.size,
            bits=_BITS,
            tasks={},
            hash_method="learned",
            training={},
            metrics={},
        )
    return load_bundle(place)


def rates(
    log: Log,
    slide: Path,
    models: list[Model],
    *,
    folder: Path,
    device: torch.device,
    rounds: int,
) -> None:
    """Each model's patches a second: bare, as ``embed`` of a slide, and of the reading alone."""
    places = corners(slide)
    workers = reader_processes(None, device.type)
    processes = max(workers, 2 if device.type == "cpu" else workers)
    for model in models:
        some = places[: model.patches]
        bundle = bundle_of(model, folder)
        extractor = FeatureExtractor.from_bundle(bundle, device)
        tiles = tile_slide(slide, TilingSettings(SIZE, mpp=TARGET_MPP), name=slide.name)
        few = folder / f"{model.name}.h5"
        count = len(some)
        write_tileset(few, _first(tiles, count))
        bare = _bare(model, count, device)
        seconds, cpu = in_turns(
            {
                "forward": bare,
                "embed": lambda e=extractor, b=bundle, f=few, m=model: embed_tiles(
                    e, b, m, tiles=f, archive=folder / "archive", workers=workers
                ),
                "read": lambda some=some: _read_plainly(slide, some, processes),
            },
            rounds,
        )
        name = f"embed, {model.name}"
        log.facts[f"{name}, patches/s"] = count / median(seconds["embed"])
        log.facts[f"{name}, bare forward, patches/s"] = count / median(seconds["forward"])
        log.facts[f"{name}, plain reading by {processes}, patches/s"] = count / median(
            seconds["read"]
        )
        slower = [max(pair) for pair in zip(seconds["forward"], seconds["read"], strict=True)]
        both = [sum(pair) for pair in zip(seconds["forward"], seconds["read"], strict=True)]
        log.facts[f"{name}, against min(read, forward)"] = quotient(slower, seconds["embed"])
        log.facts[f"{name}, against both in turn"] = quotient(both, seconds["embed"])
        used = [sum(pair) for pair in zip(cpu["forward"], cpu["read"], strict=True)]
        log.facts[f"{name}, CPU seconds of both against ours"] = quotient(used, cpu["embed"])


def reading(log: Log, slide: Path, times: int, rounds: int) -> None:
    """Patches a second that one and two reader processes deliver to an encoder that takes none."""
    patches = patches_of(slide, corners(slide)) * times
    seconds, _ = in_turns(
        {f"{n} workers": lambda n=n: deliver(patches, n) for n in (1, 2)},
        rounds,
    )
    for name, values in seconds.items():
        log.facts[f"reading, {name}, patches/s"] = len(patches) / median(values)
    log.facts["reading, two workers against one"] = quotient(
        seconds["1 workers"], seconds["2 workers"]
    )


def patches_of(slide: Path, places: list[Corner]) -> list[Patch]:
    """As ``embed`` lists them."""
    return [Patch(slide.name, slide, "slide", x, y) for x, y in places]


def deliver(patches: list[Patch], workers: int, batch_size: int = 32) -> None:
    """Through everything but a network."""
    batches = [patches[i : i + batch_size] for i in range(0, len(patches), batch_size)]
    settings = ReadSettings(SIZE, TARGET_MPP, workers=workers)
    for batch in embed_batches(batches, NoNetwork(), settings):  # type: ignore[arg-type]
        assert len(batch.features) == len(batch)


class NoNetwork:
    """An extractor that costs nothing: what is left is the pipeline's own time."""

    crop = 1.0
    device = torch.device("cpu")

    def start(self, images: torch.Tensor) -> Pending:
        """One number a patch."""
        return Pending(np.zeros((len(images), 1), np.float32))


def _first(tiles: Any, count: int) -> Any:
    return replace(tiles, coords=tiles.coords[:count], tissue=tiles.tissue[:count])


def _bare(model: Model, count: int, device: torch.device) -> Any:
    network = timm.create_model(model.name, num_classes=0).eval().to(device)
    images = torch.randn(model.batch_size, 3, SIZE, SIZE, device=device)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, count, model.batch_size):
                network(images[: min(model.batch_size, count - start)])
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run


def embed_tiles(
    extractor: FeatureExtractor,
    bundle: Bundle,
    model: Model,
    *,
    tiles: Path,
    archive: Path,
    workers: int,
) -> None:
    """A tile set into a new archive, as ``embed`` does it in this process."""
    shutil.rmtree(archive, ignore_errors=True)
    create_archive(archive, bundle, patch_px=model.size, mpp=TARGET_MPP, with_backbone=False)
    patches = PatchSettings(model.size, TARGET_MPP)
    reading = ReadSettings(model.size, TARGET_MPP, workers=workers)
    how = EmbeddingSettings(patches, reading, model.batch_size)
    embedding = LocalEmbedding(bundle, lambda: extractor, how)
    report = Report(lambda _: None, _fail)
    build = ArchiveBuild(
        *(archive, embedding, BuildSettings(patches), report), run_id="benchmark", record={}
    )
    build.run([tiles])


def _fail(name: str, sentence: str) -> None:
    raise AssertionError(name, sentence)


def _read_plainly(slide: Path, places: list[Corner], processes: int) -> None:
    share = -(-len(places) // processes)
    parts = [(slide, places[i : i + share]) for i in range(0, len(places), share)]
    in_processes(processes, _arrays, parts)


def _arrays(slide: Path, places: list[Corner]) -> int:
    return sum(np.asarray(image).shape[0] for _, image in plain_patches(slide, places))
