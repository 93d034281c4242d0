"""All triplets at once: in blocks or not, the same mean, counts and gradient."""

from __future__ import annotations

import pytest
import torch

from patchknn.losses import all_triplets as module
from patchknn.losses.all_triplets import all_triplets
from patchknn.losses.distances import euclidean_distances
from patchknn.losses.hinge import hinge


def _by_masks(distances, labels, margin, only_active):
    """The (B, B, B) way, with torch's own gradient."""
    eye = torch.eye(len(labels), dtype=torch.bool)
    same = (labels[:, None] == labels[None, :]) & ~eye
    other = labels[:, None] != labels[None, :]
    valid = same[:, :, None] & other[:, None, :]
    values = hinge(distances[:, :, None] - distances[:, None, :], margin)[valid]
    return (values[values > 0] if only_active else values).mean()


@pytest.mark.parametrize("block", [1, 200, 1 << 21])
@pytest.mark.parametrize("only_active", [False, True])
@pytest.mark.parametrize("margin", [None, 0.3])
def test_blocks_change_nothing(monkeypatch, make_batch, margin, only_active, block):
    monkeypatch.setattr(module, "_BLOCK_TRIPLETS", block)
    rows, labels = make_batch((6, 1, 4, 7))
    gradients = []
    for loss in (
        lambda d: all_triplets(d, labels, margin, only_active=only_active).mean,
        lambda d: _by_masks(d, labels, margin, only_active),
    ):
        distances = euclidean_distances(rows).requires_grad_()
        value = loss(distances)
        (3 * value).backward()
        gradients.append((value.item(), distances.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-12)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-10, atol=1e-14)


def test_triplets_are_counted(make_batch):
    rows, labels = make_batch((3, 2, 4))
    found = all_triplets(euclidean_distances(rows), labels, 1e3)
    assert found.triplets == found.active == 3 * 2 * 6 + 2 * 1 * 7 + 4 * 3 * 5
