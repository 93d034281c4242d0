"""Features of numbered images by the network as it stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchknn.datasets.windows import centre_window
from patchknn.encoder.inference import FeatureExtractor
from patchknn.training.context import Context

_BATCH = 128


def extract_features(
    context: Context, numbers: Sequence[int], label: str = "features"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features (N, D) float32 of the readable ones of the numbers, and these numbers (N,).

    The network is left in evaluation mode.
    """
    # float16 has no place in inference: features beyond 65504 would be infinite.
    precision = "bfloat16" if context.precision == "bfloat16" else "float32"
    extractor = FeatureExtractor(
        context.network, context.mean, context.std, context.device, precision
    )
    lists = [list(numbers[start : start + _BATCH]) for start in range(0, len(numbers), _BATCH)]
    features = [np.zeros((0, context.network.hash_layer.in_features), np.float32)]
    found = [np.zeros(0, np.int64)]
    batches = context.store.batches(lists)
    for images, indices in context.progress(batches, total=len(lists), label=label):
        context.check()
        if len(indices):
            patches = centre_window(images, context.settings.size)
            features.append(extractor.tensor_features(patches))
            found.append(indices.numpy())
    return np.concatenate(features), np.concatenate(found)
