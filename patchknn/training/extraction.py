"""Features of numbered inputs by the network as it stands, a share by each process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch

from patchknn.training.context import Context

_BATCH = 128


def extract_features(
    context: Context, numbers: Sequence[int], label: str = "features"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features (N, D) float32 of the readable ones of the numbers, and these numbers (N,).

    The network is left in evaluation mode.
    """
    network, device = context.network.eval(), context.device
    context.ranks.share_buffers(network)
    own = context.ranks.share(list(numbers))
    # As many in every process, also where a share is one shorter: all of them check together.
    starts = range(0, context.ranks.largest_share(len(numbers)), _BATCH)
    lists = [own[start : start + _BATCH] for start in starts]
    features = [np.zeros((0, network.hash_layer.in_features), np.float32)]
    found = [np.zeros(0, np.int64)]
    # float16 has no place in inference: features beyond 65504 would be infinite.
    half = context.precision == "bfloat16"
    for held, indices in context.progress(
        context.inputs.batches(lists), total=len(lists), label=label
    ):
        context.check()
        if len(indices) == 0:
            continue
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16) if half else nullcontext(),
        ):
            inputs = context.inputs.plain(held.to(device, non_blocking=True))
            features.append(network.features(inputs).float().cpu().numpy())
        found.append(indices.numpy())
    context.check()
    gather = context.ranks.gather_arrays
    return gather(np.concatenate(features)), gather(np.concatenate(found))
