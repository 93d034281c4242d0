"""An encoder network to and from a bundle on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from patchknn.bundle import (
    Bundle,
    EncoderDescription,
    LinearMap,
    load_backbone,
    write_bundle,
)
from patchknn.encoder.backbones import Backbone, bare_backbone
from patchknn.encoder.network import EncoderNetwork
from patchknn.errors import InputError


def save_encoder(
    directory: Path,
    network: EncoderNetwork,
    backbone: Backbone,
    *,
    input_size: int,
    bits: int,
    class_names: Sequence[str],
    hash_method: str,
    training: dict[str, Any],
    metrics: dict[str, Any],
    mpp: float | None = None,
    crop: float = 1.0,
) -> str:
    """Write the network as a bundle, float32 whatever it was trained in; return its fingerprint.

    ``class_names`` in the order of the classifier's outputs; ``crop`` is the share of a plain image
    that the network is to see; buffers are saved with the weights.
    """
    names = tuple(class_names)
    tasks = ({"name": "label", "classes": list(names)},) if network.classifier is not None else ()
    description = EncoderDescription(
        feature_dim=backbone.feature_dim,
        bits=bits,
        hash_method=hash_method,
        backbone=backbone.name,
        model_args=dict(backbone.model_args),
        timm_version=backbone.timm_version,
        input_size=input_size,
        mpp=mpp,
        crop=crop,
        mean=backbone.mean,
        std=backbone.std,
        class_names=names,
        tasks=tasks,
        training=training,
        metrics=metrics,
    )
    tensors = {name: _as_numpy(value) for name, value in network.backbone.state_dict().items()}
    classifier = None if network.classifier is None else _as_map(network.classifier)
    return write_bundle(directory, description, _as_map(network.hash_layer), classifier, tensors)


def load_encoder(bundle: Bundle, device: torch.device | None = None) -> EncoderNetwork:
    """Make the network of a bundle again, in eval mode on ``device`` (the CPU by default).

    Raises InputError where the bundle has no backbone or this timm no longer makes it so.
    """
    description = bundle.description
    tensors = load_backbone(bundle)
    if description.backbone is None:
        message = f"{bundle.directory} does not say which backbone its weights belong to."
        raise InputError(message)
    module = bare_backbone(description.backbone, dict(description.model_args))
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        import timm

        reason = " ".join(str(error).split())[:200]
        message = (
            f"The backbone {description.backbone} in {bundle.directory} was saved by timm "
            f"{description.timm_version} and does not fit timm {timm.__version__}: {reason}"
        )
        raise InputError(message) from None
    classifier = bundle.classifier
    n_classes = 0 if classifier is None else classifier.weight.shape[0]
    network = EncoderNetwork(module, description.feature_dim, description.bits, n_classes)
    _fill(network.hash_layer, bundle.hash_map)
    if network.classifier is not None and classifier is not None:
        _fill(network.classifier, classifier)
    return network.eval().to(device or torch.device("cpu"))


def _as_numpy(value: torch.Tensor) -> np.ndarray[Any, Any]:
    value = value.detach().cpu()
    array: np.ndarray[Any, Any] = (value.float() if value.is_floating_point() else value).numpy()
    return array


def _as_map(layer: nn.Linear) -> LinearMap:
    return LinearMap(_as_numpy(layer.weight), _as_numpy(layer.bias))


def _fill(layer: nn.Linear, linear_map: LinearMap) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear_map.weight.copy()))
        layer.bias.copy_(torch.from_numpy(linear_map.bias.copy()))
