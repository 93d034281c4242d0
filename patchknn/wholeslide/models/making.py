"""A slide model by its name on the command line."""

from __future__ import annotations

from typing import Any

from torch import nn

from patchknn.errors import InputError
from patchknn.wholeslide.models.attention_mil import AttentionMIL
from patchknn.wholeslide.models.max_pooling import MaxPooling
from patchknn.wholeslide.models.mean_pooling import MeanPooling
from patchknn.wholeslide.models.strided_cnn import StridedCNN

MODELS: dict[str, type[nn.Module]] = {
    "cnn": StridedCNN,
    "mil": AttentionMIL,
    "mean": MeanPooling,
    "max": MaxPooling,
}
# What of the settings each takes.
SHAPES: dict[str, tuple[str, ...]] = {
    "cnn": ("hidden", "depth", "dropout"),
    "mil": ("hidden", "dropout"),
    "mean": (),
    "max": (),
}


def make_network(model: str, dim: int, outputs: int, shape: dict[str, Any]) -> nn.Module:
    """A network for grids of ``dim`` features with ``outputs`` numbers; raises InputError.

    ``shape`` are the settings of ``SHAPES``, by name.
    """
    if model not in MODELS:
        message = f"{model!r} is no slide model that this patchknn knows: update it."
        raise InputError(message)
    try:
        return MODELS[model](dim, outputs, **shape)
    except TypeError as error:
        message = f"A slide model {model} cannot be made of {shape}: {error}"
        raise InputError(message) from None
