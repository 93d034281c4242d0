"""Small pictures of three textures, and settings that train a small network on them in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.datasets.patches import Patch
from patchknn.training.settings import TrainingSettings

CLASSES = ("blobs", "grain", "stripes")


def texture(label: str, seed: int, size: int = 32) -> np.ndarray:
    """A picture (S, S, 3) uint8 of one texture; the mean colour says nothing of the class."""
    rng = np.random.default_rng(seed)
    if label == "grain":
        field = rng.normal(size=(size, size))
    elif label == "blobs":
        field = np.kron(rng.normal(size=(4, 4)), np.ones((size // 4, size // 4)))
    else:
        phase = rng.uniform(0, 6)
        field = np.sin(np.arange(size) * 1.2 + phase)[:, None] * np.ones(size)
        field = field if rng.random() < 0.5 else field.T
    field = (field - field.mean()) / field.std()
    colour = rng.uniform(100, 150, 3)
    return np.clip(colour + 40 * field[:, :, None], 0, 255).astype(np.uint8)


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write an ImageFolder of textures: ``picture_folder(per_class=8)``."""

    def write(per_class: int = 8, name: str = "pictures", classes=CLASSES) -> Path:
        folder = tmp_path / name
        for number, label in enumerate(classes):
            (folder / label).mkdir(parents=True)
            for index in range(per_class):
                picture = Image.fromarray(texture(label, 1000 * number + index))
                picture.save(folder / label / f"{index:03}.png")
        return folder

    return write


@pytest.fixture
def pictures(picture_folder: Callable[..., Path]) -> Callable[..., list[Patch]]:
    """The same as patches; ``patients`` of them, none by default."""

    def make(per_class: int = 8, patients: int = 0, name: str = "pictures") -> list[Patch]:
        folder = picture_folder(per_class, name)
        return [
            Patch(
                f"{label}/{index:03}.png",
                folder / label / f"{index:03}.png",
                "image",
                label=label,
                patient=f"P{index % patients}" if patients else None,
            )
            for label in CLASSES
            for index in range(per_class)
        ]

    return make


@pytest.fixture
def make_settings() -> Callable[..., TrainingSettings]:
    """Settings for the smallest of timm's own test networks."""

    def make(**changes: object) -> TrainingSettings:
        usual = {
            "backbone": "test_resnet",
            "size": 32,
            "bits": 16,
            "epochs": 2,
            "per_class": 4,
            "workers": 0,
            "device": "cpu",
        }
        return TrainingSettings(**{**usual, **changes})

    return make


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """A state dict of the test network, as if it had been trained before."""
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=0)
    file = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), file)
    return file
