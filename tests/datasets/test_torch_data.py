"""The torch Dataset: batches in order from any number of workers, errors as text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from patchknn.datasets.patches import Patch
from patchknn.datasets.torch_data import PatchDataset, collate


@pytest.mark.parametrize("workers", [0, 2])
def test_images_come_in_order_with_their_numbers_and_errors(tmp_path, write_png, workers):
    patches = []
    for number in range(7):
        path = write_png(tmp_path / f"{number}.png", seed=number)
        patches.append(Patch(path.name, path, "image", label="A"))
    (tmp_path / "3.png").write_bytes(b"")
    dataset = PatchDataset(patches, 32, None)
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=collate)
    batches = list(loader)
    assert [len(batch.images) for batch in batches] == [3, 3, 1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(7))
    errors = [error for batch in batches for error in batch.errors]
    assert [error is None for error in errors] == [n != 3 for n in range(7)]
    assert "3.png is not an image: it is an empty file" in errors[3]
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.uint8
    assert not images[3].any()
    expected = np.asarray(Image.open(tmp_path / "5.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(images[5].numpy(), expected)


def test_one_item_by_its_number(tmp_path, write_png):
    path = write_png(tmp_path / "1.png")
    item = PatchDataset([Patch("1.png", path, "image")], 32, None)[0]
    assert item.image.shape == (3, 32, 32)
    assert (item.index, item.error) == (0, None)


def test_crop_and_read_size_reach_the_pixels_and_the_unreadable_have_the_same_shape(
    tmp_path, write_png
):
    path = write_png(tmp_path / "1.png", size=(40, 40))
    (tmp_path / "2.png").write_bytes(b"")
    patches = [Patch("1.png", path, "image"), Patch("2.png", tmp_path / "2.png", "image")]
    wide = collate(PatchDataset(patches, 32, None, crop=0.8, read_size=40).__getitems__([0, 1]))
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    assert torch.equal(wide.images[0], image)
    assert wide.errors[1] is not None
    cropped = PatchDataset(patches, 32, None, crop=0.8)[0].image
    assert torch.equal(cropped, image[:, 4:36, 4:36])
