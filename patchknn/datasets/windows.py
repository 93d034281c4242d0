"""Where the pixels of an augmented image come from: windows, orientations and zooms."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def centre_window(images: Tensor, size: int) -> Tensor:
    """The middle (..., size, size) of images (..., H, W), without a copy.

    Raises ValueError where the images are smaller.
    """
    top, left = (margin // 2 for margin in _margins(images, size))
    return images[..., top : top + size, left : left + size]


def window_corners(images: Tensor, size: int, place: Tensor) -> Tensor:
    """Corners (B, 2) int64, y and x, of windows at ``place`` (B, 2) in [0, 1]: all equally likely.

    Raises ValueError where the images (B, 3, H, W) are smaller than the windows.
    """
    margins = _margins(images, size)
    # A place just below 1 is rounded up to 1 in float32.
    corners = [
        (place[:, axis] * (margin + 1)).long().clamp_max(margin)
        for axis, margin in enumerate(margins)
    ]
    return torch.stack(corners, 1)


def oriented_windows(images: Tensor, size: int, corners: Tensor, orientation: Tensor) -> Tensor:
    """Windows of (B, 3, H, W), flipped and turned: (B, 3, size, size), no pixel changed.

    ``corners`` (B, 2) int64 within the images; ``orientation`` (B,) int64 from 0 to 7: odd is
    mirrored left and right, bit 1 upside down, bit 2 transposed.
    """
    height, width = images.shape[2:]
    ahead = torch.arange(size, device=images.device)
    mirrored, upturned, transposed = ((orientation[:, None] & bit) != 0 for bit in (1, 2, 4))
    x = corners[:, 1:] + torch.where(mirrored, size - 1 - ahead, ahead)
    y = (corners[:, :1] + torch.where(upturned, size - 1 - ahead, ahead)) * width
    down, across = torch.where(transposed, x, y), torch.where(transposed, y, x)
    source = (down[:, :, None] + across[:, None, :]).view(len(images), 1, -1)
    pixels = images.reshape(len(images), 3, height * width)
    moved = torch.gather(pixels, 2, source.expand(-1, 3, -1))
    return moved.view(len(images), 3, size, size)


def zoomed(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A part of each image as large as the whole, float32 (B, 3, S, S) both, bilinear.

    ``scale`` (B,) is the share of the side that is kept, in (0, 1]; ``shift`` (B, 2), x and y,
    moves it from the middle, from -(1 - scale) to 1 - scale.
    """
    count, _, height, width = values.shape
    grid = values.new_empty(count, height, width, 2)
    for axis, (length, view) in enumerate(((width, (1, 1, -1)), (height, (1, -1, 1)))):
        centres = (torch.arange(length, device=values.device) * 2 + 1) / length - 1
        grid[..., axis] = centres.view(view) * scale[:, None, None] + shift[:, axis, None, None]
    # Beyond the outermost pixels' centres lies half a pixel at most: the border stands for it.
    return nn.functional.grid_sample(
        values, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _margins(images: Tensor, size: int) -> tuple[int, int]:
    height, width = images.shape[-2:]
    if min(height, width) < size:
        message = f"images of {height} × {width} px have no window of {size} px"
        raise ValueError(message)
    return height - size, width - size
