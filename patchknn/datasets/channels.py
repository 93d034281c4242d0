"""An affine map of the three channels, another one for each image of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def mix_channels(values: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """``matrix @ value + offset`` of every pixel: float32 (B, 3, H, W) → float32 (B, 3, H, W).

    ``matrix`` (B, 3, 3) and ``offset`` (B, 3), float32 on the device of ``values``. An image gives
    the same bits in a batch of any size.
    """
    # Not as a matrix product: its kernels hang on the size of the batch, may round to TF32, and
    # autocast would do it in bfloat16.
    mixed = torch.empty_like(values, memory_format=torch.contiguous_format)
    weights = matrix[:, :, :, None, None]
    for row in range(3):
        channel = mixed[:, row]
        torch.mul(values[:, 0], weights[:, row, 0], out=channel)
        channel.addcmul_(values[:, 1], weights[:, row, 1])
        channel.addcmul_(values[:, 2], weights[:, row, 2])
    return mixed if offset is None else mixed.add_(offset[:, :, None, None])
