"""Features against a literal timm forward pass, and independence of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.encoder.inference import FeatureExtractor, normalise
from patchknn.encoder.network import EncoderNetwork
from patchknn.errors import UsageError

_MEAN, _STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(params=["test_resnet", "test_vit", "test_efficientnet"])
def module(request):
    torch.manual_seed(0)
    size = {"img_size": 32} if request.param == "test_vit" else {}
    return timm.create_model(request.param, num_classes=0, **size).eval()


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)


def _extractor(module, precision="float32", *, normalized=False, **options):
    network = EncoderNetwork(module, 1, 8, (), normalized=normalized)
    return FeatureExtractor(network, _MEAN, _STD, torch.device("cpu"), precision, **options)


def test_features_are_those_of_the_model_on_normalised_images(module, images):
    inputs = (images.astype(np.float64) / 255 - np.array(_MEAN)) / np.array(_STD)
    with torch.no_grad():
        oracle = module(torch.from_numpy(inputs.astype(np.float32).transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(
        _extractor(module).features(images), oracle.numpy(), rtol=1e-4, atol=1e-5
    )


def test_the_batch_changes_nothing_beyond_float16_rounding(module, images):
    extractor = _extractor(module)
    together = extractor.features(images)
    alone = np.concatenate([extractor.features(images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(together, alone, rtol=2**-11, atol=1e-5)


def test_a_batch_of_many_is_the_model_on_all_of_them_in_order(module):
    many = np.random.default_rng(2).integers(0, 256, (37, 32, 32, 3), np.uint8)
    inputs = (many.astype(np.float64) / 255 - np.array(_MEAN)) / np.array(_STD)
    with torch.no_grad():
        oracle = module(torch.from_numpy(inputs.astype(np.float32).transpose(0, 3, 1, 2))).numpy()
    pending = _extractor(module).start(torch.from_numpy(many).permute(0, 3, 1, 2))
    np.testing.assert_allclose(pending.result(), oracle, rtol=1e-4, atol=1e-5)
    assert pending.seconds().forward > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_that_a_gpu_has_in_hand_together_do_not_mix(module, images):
    device = torch.device("cuda")
    extractor = FeatureExtractor(EncoderNetwork(module, 1, 8, ()), _MEAN, _STD, device)
    batches = [images, images[::-1].copy(), images[:3]]
    alone = [extractor.features(batch) for batch in batches]
    tensors = [torch.from_numpy(batch).pin_memory().permute(0, 3, 1, 2) for batch in batches]
    together = [extractor.start(tensor) for tensor in tensors]
    for pending, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(pending.result(), expected, rtol=1e-4, atol=1e-5)
        assert min(pending.seconds()) >= 0


def test_bfloat16_is_close_and_leaves_as_float32(module, images):
    exact, coarse = _extractor(module).features(images), _extractor(module, "bfloat16")
    result = coarse.features(images)
    assert result.dtype == np.float32
    error = np.linalg.norm(result - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.05


@pytest.mark.parametrize("count", [2, 4, 8])
def test_averaged_features_are_the_mean_over_flips_and_turns(module, images, count):
    one, averaged = _extractor(module), _extractor(module, averaged=count)
    turned = [np.rot90(images, n, (1, 2)) for n in range(4 if count > 2 else 1)]
    views = [*turned, *(view[:, :, ::-1] for view in turned if count != 4)]
    oracle = np.mean([one.features(view.copy()).astype(np.float64) for view in views], axis=0)
    found = averaged.features(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle, rtol=1e-4, atol=1e-5)
    # How the image lies does not matter any more, and did before.
    for view in views[1:]:
        np.testing.assert_allclose(averaged.features(view.copy()), found, rtol=1e-4, atol=1e-5)
    assert np.abs(one.features(views[1].copy()) - one.features(images)).max() > 1e-3


@pytest.mark.parametrize("normalized", [False, True])
def test_features_apart_are_those_of_each_flip_and_turn(module, images, normalized):
    apart = _extractor(module, averaged=8, apart=True, normalized=normalized).features(images)
    single = _extractor(module, normalized=normalized)
    views = [np.rot90(images, turns, (1, 2)) for turns in range(4)]
    views = [side for view in views for side in (view, view[:, :, ::-1])]
    expected = [single.features(np.ascontiguousarray(view)) for view in views]
    np.testing.assert_allclose(apart, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_other_numbers_of_orientations_are_a_usage_error(module):
    with pytest.raises(UsageError, match="--orientations 3"):
        _extractor(module, averaged=3)


def test_normalise_is_the_formula():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    result = normalise(pixels, _MEAN, _STD)
    for channel in range(3):
        expected = (pixels[0, channel].double() / 255 - _MEAN[channel]) / _STD[channel]
        torch.testing.assert_close(result[0, channel].double(), expected, rtol=0, atol=1e-6)


def test_an_unknown_precision_or_device_is_a_usage_error(module, monkeypatch):
    with pytest.raises(UsageError, match="--precision float8"):
        _extractor(module, "float8")
    with pytest.raises(UsageError, match="--device gpu"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch sees no GPU"):
        choose_device("cuda")
    assert choose_device(None).type == "cpu"


def test_threads_are_never_more_than_slurm_gave(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
        assert limit_threads() == 1
        assert limit_threads(16) == 1
    finally:
        torch.set_num_threads(before)
