"""Any timm model as a backbone: images in, one feature vector per image out."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchknn.encoder.hub import asking
from patchknn.encoder.names import Model, resolve
from patchknn.encoder.weight_files import weights_file_name
from patchknn.encoder.weights import load_weights
from patchknn.errors import UsageError

Colour = tuple[float, float, float]


@dataclass
class Backbone:
    """A backbone and what must be known to make it again without a network connection.

    ``name`` is the architecture (never ``hf-hub:`` or ``local-dir:``, whose settings are folded
    into ``model_args``); ``mean`` and ``std`` per RGB channel of images scaled to [0, 1].
    """

    module: nn.Module
    name: str
    feature_dim: int
    mean: Colour
    std: Colour
    input_size: int
    model_args: dict[str, Any] = field(default_factory=dict)
    timm_version: str = ""


def create_backbone(
    name: str,
    *,
    input_size: int | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    model_args: dict[str, Any] | None = None,
    mean: Colour | None = None,
    std: Colour | None = None,
) -> Backbone:
    """Make a timm model without classifier, with the weights asked for.

    ``input_size`` in pixels, ``mean`` and ``std`` default to what timm knows of the model.
    Raises UsageError for an unknown name (with the nearest ones) or a wrong model argument, and
    InputError where weights cannot be had or belong to another backbone.
    """
    import timm

    if pretrained and weights is not None:
        message = "--pretrained and --weights exclude each other; give one of them."
        raise UsageError(message)
    remedy = _fetch_elsewhere(name, model_args or {})
    model = resolve(name, remedy, weights)
    arguments = arguments_of(model, model_args, input_size)
    if pretrained:
        module = pretrained_module(name, model, arguments, remedy)
    else:
        module = _create(model.architecture, arguments)
    if weights is not None:
        load_weights(module, weights)
    configuration = {**(vars(module).get("pretrained_cfg") or {}), **model.configuration}
    size = input_size or int(configuration.get("input_size", (3, 224, 224))[-1])
    module.eval()
    return Backbone(
        module=module,
        name=model.architecture,
        feature_dim=_feature_dim(module, model.architecture, size),
        mean=mean or _colour(configuration.get("mean", (0.485, 0.456, 0.406))),
        std=std or _colour(configuration.get("std", (0.229, 0.224, 0.225))),
        input_size=size,
        model_args=arguments,
        timm_version=timm.__version__,
    )


def bare_backbone(name: str, model_args: dict[str, Any]) -> nn.Module:
    """The architecture alone, to be filled with stored weights; never asks the network."""
    return _create(resolve(name, "").architecture, model_args)


def arguments_of(
    model: Model, model_args: Mapping[str, Any] | None, input_size: int | None
) -> dict[str, Any]:
    """What a model is built with for images of ``input_size`` (px; None: as it is known)."""
    arguments = {**model.model_args, **(model_args or {})}
    _fix_image_size(model, arguments, input_size)
    return arguments


def pretrained_module(name: str, model: Model, arguments: dict[str, Any], remedy: str) -> nn.Module:
    """The module of a model, without classifier, with its pretrained weights.

    Raises UsageError where there are none, InputError that ends with ``remedy`` where they
    cannot be had.
    """
    if ":" not in name and not model.place:  # timm might go on with random ones
        message = (
            f"There are no pretrained weights of {name}: leave --pretrained away and train it from "
            "scratch, or give --weights FILE."
        )
        raise UsageError(message)
    with asking(name, model.place, remedy):
        return _create(name, arguments, pretrained=True)


def parse_model_args(settings: Iterable[str]) -> dict[str, Any]:
    """``["pad_type=same", "img_size=96"]`` → ``{"pad_type": "same", "img_size": 96}``.

    Numbers, true, false, none and lists are recognised, anything else is text; text such as
    ``timm.layers.SwiGLUPacked`` or ``torch.nn.SiLU`` names a layer. Raises UsageError.
    """
    words = {"true": True, "false": False, "none": None}
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.isidentifier():
            message = f"--model-arg {setting!r} is not of the form NAME=VALUE."
            raise UsageError(message)
        try:
            value = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        result[key] = list(value) if isinstance(value, tuple) else value
    return result


def model_arg_options(model_args: Mapping[str, Any]) -> str:
    """What ``parse_model_args`` has read, as a shell takes it, with a blank before each."""
    return "".join(
        f" --model-arg {shlex.quote(f'{key}={value}')}" for key, value in model_args.items()
    )


def _fetch_elsewhere(name: str, model_args: Mapping[str, Any]) -> str:
    options = model_arg_options(model_args)
    return (
        f"run 'patchknn weights fetch {shlex.quote(name)} DIR{options}' on a node with internet, "
        f"such as a login node, and give --weights DIR/{weights_file_name(name)} here"
    )


def _create(name: str, arguments: dict[str, Any], *, pretrained: bool = False) -> nn.Module:
    import timm

    try:
        module: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=0, **_with_layers(arguments)
        )
    except TypeError as error:
        message = f"Backbone {name} does not take these --model-arg {arguments}: {error}"
        raise UsageError(message) from None
    except Exception as error:
        if pretrained:
            raise
        message = f"Backbone {name} cannot be made with {arguments}: {error}"
        raise UsageError(message) from error
    return module


def _with_layers(arguments: dict[str, Any]) -> dict[str, Any]:
    """Layer classes for their names: foundation models are published with such arguments."""
    import timm.layers

    homes = {"timm.layers.": timm.layers, "torch.nn.": nn}
    result = dict(arguments)
    for key, value in arguments.items():
        for prefix, home in homes.items():
            if isinstance(value, str) and value.startswith(prefix):
                layer = getattr(home, value.removeprefix(prefix), None)
                if layer is None:
                    message = f"--model-arg {key}={value}: there is no such layer."
                    raise UsageError(message)
                result[key] = layer
    return result


def _fix_image_size(model: Model, arguments: dict[str, Any], input_size: int | None) -> None:
    """Transformers are built for one image size: pass it on, and with it into the bundle."""
    import timm

    known = timm.get_pretrained_cfg(model.architecture, allow_unregistered=True)
    described = model.configuration.get("input_size")
    wanted = input_size or (described[-1] if described else None)
    if wanted is None or known is None or wanted == known.input_size[-1]:
        return
    if known.fixed_input_size and "dynamic_img_size" not in arguments:
        arguments.setdefault("img_size", wanted)


def _feature_dim(module: nn.Module, name: str, size: int) -> int:
    with torch.inference_mode():
        try:
            output = module(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            message = f"Backbone {name} cannot take images of {size} px ({reason}); change --size."
            raise UsageError(message) from None
    if output.ndim != 2:
        message = (
            f"Backbone {name} gives {tuple(output.shape[1:])} per image, not one vector; "
            "give --model-arg global_pool=avg."
        )
        raise UsageError(message)
    return int(output.shape[1])


def _colour(values: Iterable[float]) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
