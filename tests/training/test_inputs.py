"""What a network is fed with: the same pixels however a batch is shared out, the centre in test."""

from __future__ import annotations

import pytest
import torch

from patchknn.datasets.images import fit, read_patch
from patchknn.slides.images import read_image
from patchknn.training.images import ImageStore
from patchknn.training.inputs import FeatureInputs, ImageInputs

_MEAN, _STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def _inputs(patches, recipe="tissue", size=24, crop=0.75, cache_bytes=1 << 30):
    read = round(size / crop)
    store = ImageStore(
        patches, size, None, crop=crop, read_size=read, workers=0, cache_bytes=cache_bytes
    )
    inputs = ImageInputs(store, size, recipe, _MEAN, _STD)
    inputs.load(lambda items, **_: iter(items), lambda: None)
    return inputs


def _normalised(pixels):
    values = torch.from_numpy(pixels).permute(2, 0, 1).double() / 255
    return (values - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_judged_is_what_embedding_will_see(pictures, cache_bytes):
    patches = pictures(per_class=2)
    inputs = _inputs(patches, cache_bytes=cache_bytes)
    ((held, numbers),) = inputs.batches([[4, 1]])
    seen = inputs.plain(held)
    assert held.shape == (2, 3, 32, 32)
    assert seen.shape == (2, 3, 24, 24)
    for row, number in zip(seen, numbers.tolist(), strict=True):
        expected = fit(read_image(patches[number].path), 24, 0.75)
        assert torch.allclose(row.double(), _normalised(expected), atol=1e-5)


def test_without_a_crop_the_whole_image_is_seen(pictures):
    patches = pictures(per_class=1)
    inputs = _inputs(patches, size=32, crop=1.0)
    ((held, _),) = inputs.batches([[2]])
    expected = _normalised(read_patch(patches[2], 32, None))
    assert torch.allclose(inputs.plain(held)[0].double(), expected, atol=1e-5)


@pytest.mark.parametrize("recipe", ["none", "flip", "light", "colour", "tissue"])
def test_the_parts_of_a_batch_are_varied_as_the_whole(pictures, recipe):
    inputs = _inputs(pictures(per_class=4), recipe)
    numbers = [3, 11, 0, 7, 5, 2]
    ((held, _),) = inputs.batches([numbers])
    whole = inputs.varied(held, range(6), 6, torch.Generator().manual_seed(5))
    for places in ([0, 1, 2], [3, 4, 5], [1, 4]):  # the last: others could not be read
        part = inputs.varied(held[places], places, 6, torch.Generator().manual_seed(5))
        assert torch.equal(part, whole[places])
    other = inputs.varied(held, range(6), 6, torch.Generator().manual_seed(6))
    assert torch.equal(other, whole) == (recipe == "none")


def test_stored_features_are_rows_in_float32():
    features = torch.randn(5, 3).half()
    inputs = FeatureInputs(features)
    ((held, numbers),) = inputs.batches([[4, 0]])
    assert numbers.tolist() == [4, 0]
    varied = inputs.varied(held, [0, 1], 2, torch.Generator())
    assert varied.dtype == inputs.plain(held).dtype == torch.float32
    assert torch.equal(varied, features[[4, 0]].float())
