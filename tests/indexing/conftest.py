"""A tiny encoder, and images and slides for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from patchknn.archive.snapshot import open_archive
from patchknn.bundle import load_bundle
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.inference import FeatureExtractor
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder

SIZE = 32


def save_tiny_encoder(directory, seed=0, bits=16, crop=1.0):
    """A small residual network with random weights, which tells random images apart."""
    torch.manual_seed(seed)
    backbone = create_backbone("test_resnet", input_size=SIZE)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, bits, ())
    save_encoder(
        Path(directory),
        network,
        backbone,
        input_size=SIZE,
        bits=bits,
        tasks={},
        hash_method="learned",
        training={},
        metrics={},
        crop=crop,
    )
    return Path(directory)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """The folder of an encoder bundle: 32 px, 16 bits."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory):
    """Another one of the same shape."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "other", seed=1)


@pytest.fixture(scope="session")
def cropping_encoder(tmp_path_factory):
    """One that takes the middle four fifths of plain images: 32 of 40 px."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "cropping", crop=0.8)


@pytest.fixture
def extractor(encoder):
    return FeatureExtractor.from_bundle(load_bundle(encoder), torch.device("cpu"))


@pytest.fixture
def image_folder(tmp_path):
    """Make an ImageFolder of noise: ``image_folder(12)`` has 12 images of classes A, B, C.

    They are ``side`` px wide and high, by default what the encoder takes.
    """

    def make(count, name="data", first=0, side=SIZE):
        folder = tmp_path / name
        for number in range(first, first + count):
            path = folder / "ABC"[number % 3] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        return folder

    return make


@pytest.fixture
def write_slide(tmp_path):
    """Write a tiled TIFF whose left half is tissue, at 0.5 µm/px."""

    def write(name, *, size=256, seed=0, tissue=True, mpp=0.5):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((size, size, 3), 245, np.uint8)
        if tissue:
            grain = np.random.default_rng(seed).integers(-30, 30, (size, size // 2, 3))
            pixels[:, : size // 2] = np.clip(np.array([200, 90, 160]) + grain, 0, 255)
        resolution = {}
        if mpp is not None:
            resolution = {"resolution": (10000 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", **resolution)
        return path

    return write


@pytest.fixture
def embed(patchknn, encoder, tmp_path):
    """Run ``patchknn embed`` into ``tmp_path/archive``; the result and its summary."""

    def call(*arguments, archive="archive", encoder=encoder):
        result = patchknn(
            "embed", *arguments, "-e", encoder, "-a", tmp_path / archive, "--workers", 0,
            "--device", "cpu",
        )  # fmt: skip
        summary = json.loads(result.out) if result.out.startswith("{") else None
        return result, summary

    return call


@pytest.fixture
def rows_of(tmp_path):
    """``rows_of("archive")``: id → (feature, code, label, patient), to compare archives."""

    def read(archive="archive"):
        snapshot = open_archive(tmp_path / archive)
        rows = {}
        for number in range(len(snapshot)):
            row = snapshot.row(number)
            shard, local = snapshot.shard_of(number)
            rows[row.id] = (shard.features[local].tobytes(), row.code, row.label, row.patient)
        assert len(rows) == len(snapshot)
        return rows

    return read
