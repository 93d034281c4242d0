"""The backbone that was never trained on patches, against timm itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from patchknn.archive.create import create_archive
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.bundle import load_bundle
from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import save_encoder
from patchknn.errors import InputError, UsageError
from patchknn.evaluation.baselines.frozen import FrozenFeatures

HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """An empty archive of 32 px whose encoder has a test_resnet and scales to -1 to 1."""
    torch.manual_seed(1)
    backbone = create_backbone("test_resnet", input_size=32, mean=HALF, std=HALF)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, 16, ())
    save_encoder(
        tmp_path / "encoder",
        network,
        backbone,
        input_size=32,
        bits=16,
        tasks={},
        training={},
        metrics={},
        hash_method="learned",
    )
    create_archive(tmp_path / "archive", load_bundle(tmp_path / "encoder"), patch_px=32, mpp=None)
    return open_archive(tmp_path / "archive")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Another test_resnet's weights, as timm has them."""
    torch.manual_seed(2)
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    return file


def test_features_are_those_of_the_weights_given(snapshot: Snapshot, weights: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (side, side, 3)).astype(np.uint8) for side in (32, 32, 20)]
    frozen = FrozenFeatures(snapshot, weights=weights, device="cpu")
    torch.manual_seed(2)
    model = timm.create_model("test_resnet", num_classes=0).eval()
    sized = [
        np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BILINEAR))
        for one in pictures
    ]
    batch = torch.from_numpy(np.stack(sized) / 127.5 - 1).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(batch).numpy()
    np.testing.assert_allclose(frozen(pictures), expected, rtol=1e-3, atol=1e-4)
    assert frozen([]).shape == (0, frozen.dim)


def test_without_weights_it_says_where_to_get_them(snapshot: Snapshot) -> None:
    with pytest.raises(InputError, match="no pretrained weights of test_resnet can be had here"):
        FrozenFeatures(snapshot)


def test_a_name_that_timm_lacks_or_has_no_weights_of(snapshot: Snapshot) -> None:
    with pytest.raises(UsageError, match="timm has no backbone 'resnt18'; the nearest are"):
        FrozenFeatures(snapshot, "resnt18")
    with pytest.raises(InputError, match="there are no pretrained weights of nic_cnn"):
        FrozenFeatures(snapshot, "nic_cnn")


def test_without_a_download_only_a_warm_cache_serves(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of the hub: that would be an error which names another reason."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cold"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="were not downloaded yet: --baseline all does it"):
        FrozenFeatures(snapshot, download=False)
    assert not constants.HF_HUB_OFFLINE


def test_an_archive_of_stored_features_needs_a_name(
    feature_archive: Callable[..., Snapshot], weights: Path
) -> None:
    archive = feature_archive([np.zeros((4, 3))])
    with pytest.raises(InputError, match="--frozen-backbone"):
        FrozenFeatures(archive, weights=weights)
    named = FrozenFeatures(archive, "test_resnet", weights, "cpu")
    assert named([np.zeros((32, 32, 3), np.uint8)]).shape == (1, named.dim)
