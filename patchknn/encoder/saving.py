"""An encoder network to and from a bundle on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from patchknn.bundle import Bundle, load_backbone, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.encoder.backbones import Backbone, bare_backbone
from patchknn.encoder.mlp import Chained, FeatureMLP
from patchknn.encoder.network import EncoderNetwork
from patchknn.errors import ConflictError, InputError


def save_encoder(
    directory: Path,
    network: EncoderNetwork,
    backbone: Backbone | None,
    *,
    input_size: int,
    bits: int,
    tasks: Mapping[str, Sequence[str]],
    hash_method: str,
    training: dict[str, Any],
    metrics: dict[str, Any],
    mpp: float | None = None,
    crop: float = 1.0,
) -> str:
    """Write the network as a bundle, float32 whatever it was trained in; return its fingerprint.

    ``network.backbone`` is the module of ``backbone``, or a ``Chained`` of that and an MLP; where
    ``backbone`` is None the network takes stored features, through a ``FeatureMLP`` or, as an
    ``nn.Identity``, as they are. ``tasks`` names the classes of each classifier, in the order of
    its outputs; ``crop`` is the share of a plain image that the network is to see; buffers are
    saved with the weights. ``input_size`` (px) and ``mpp`` (µm/px) are of the patches, also where
    only their features go in. Raises ConflictError for another module without a backbone.
    """
    names = tuple(next(iter(tasks.values()), ()))
    description = EncoderDescription(
        feature_dim=network.hash_layer.in_features,
        bits=bits,
        hash_method=hash_method,
        input_size=input_size,
        mpp=mpp,
        crop=crop,
        class_names=names,
        tasks=tuple({"name": name, "classes": list(own)} for name, own in tasks.items()),
        training=training,
        metrics=metrics,
        normalized=network.normalized,
        **_what_goes_in(network, backbone),
    )
    tensors = {name: _as_numpy(value) for name, value in network.backbone.state_dict().items()}
    classifiers = [_as_map(layer) for layer in network.task_layers]
    return write_bundle(directory, description, _as_map(network.hash_layer), classifiers, tensors)


def load_encoder(bundle: Bundle, device: torch.device | None = None) -> EncoderNetwork:
    """Make the network of a bundle again, in eval mode on ``device`` (the CPU by default).

    Its ``backbone`` is as ``save_encoder`` took it. Raises InputError where the bundle has no
    network or this timm no longer makes it so.
    """
    description = bundle.description
    tensors = load_backbone(bundle)
    module = _bare_module(bundle)
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
        if description.backbone is None:
            message = f"The network in {bundle.directory} is not the one it describes: {reason}"
        raise InputError(message) from None
    classes = [len(classifier.bias) for classifier in bundle.classifiers]
    network = EncoderNetwork(
        module,
        description.feature_dim,
        description.bits,
        classes,
        normalized=description.normalized,
    )
    _fill(network.hash_layer, bundle.hash_map)
    for layer, classifier in zip(network.task_layers, bundle.classifiers, strict=True):
        _fill(layer, classifier)
    return network.eval().to(device or torch.device("cpu"))


def _what_goes_in(network: EncoderNetwork, backbone: Backbone | None) -> dict[str, Any]:
    module = network.backbone
    if backbone is None:
        if not isinstance(module, FeatureMLP | nn.Identity):
            message = "A network without a backbone takes stored features: give a FeatureMLP."
            raise ConflictError(message)
        projection = module.settings if isinstance(module, FeatureMLP) else None
        taken = network.hash_layer.in_features if projection is None else projection["input_dim"]
        return {"input": "features", "input_dim": taken, "projection": projection}
    return {
        "backbone": backbone.name,
        "model_args": dict(backbone.model_args),
        "timm_version": backbone.timm_version,
        "mean": backbone.mean,
        "std": backbone.std,
        "projection": module.mlp.settings if isinstance(module, Chained) else None,
    }


def _bare_module(bundle: Bundle) -> nn.Module:
    description = bundle.description
    mlp = None
    if description.projection is not None:
        mlp = _bare_mlp(bundle.directory, description.projection)
    if description.input == "features":
        return nn.Identity() if mlp is None else mlp
    if description.backbone is None:
        message = f"{bundle.directory} does not say which backbone its weights belong to."
        raise InputError(message)
    backbone = bare_backbone(description.backbone, dict(description.model_args))
    return backbone if mlp is None else Chained(backbone, mlp)


def _bare_mlp(directory: Path, projection: dict[str, Any]) -> FeatureMLP:
    settings = dict(projection)
    kind = settings.pop("kind", None)
    if kind != "mlp":
        message = f"{directory} projects by {kind!r}, which this patchknn does not know: update it."
        raise InputError(message)
    try:
        return FeatureMLP(**settings)
    except TypeError as error:
        message = f"{directory} describes an MLP that this patchknn cannot make: {error}"
        raise InputError(message) from None


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
