"""Any timm model as a backbone: images in, one feature vector per image out."""

from __future__ import annotations

import ast
import difflib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchknn.encoder.weights import load_weights
from patchknn.errors import InputError, UsageError

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
    architecture, known_args = _resolve(name)
    arguments = known_args | (model_args or {})
    _fix_image_size(architecture, arguments, input_size)
    if pretrained:
        _check_pretrained(name)
    source = name if pretrained else architecture
    module = _create(source, arguments, pretrained=pretrained)
    if weights is not None:
        load_weights(module, weights)
    configuration: dict[str, Any] = dict(vars(module).get("pretrained_cfg") or {})
    size = input_size or int(configuration.get("input_size", (3, 224, 224))[-1])
    module.eval()
    return Backbone(
        module=module,
        name=architecture,
        feature_dim=_feature_dim(module, architecture, size),
        mean=mean or _colour(configuration.get("mean", (0.485, 0.456, 0.406))),
        std=std or _colour(configuration.get("std", (0.229, 0.224, 0.225))),
        input_size=size,
        model_args=arguments,
        timm_version=timm.__version__,
    )


def bare_backbone(name: str, model_args: dict[str, Any]) -> nn.Module:
    """The architecture alone, to be filled with stored weights; never asks the network."""
    _resolve(name)
    return _create(name, model_args, pretrained=False)


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


def _resolve(name: str) -> tuple[str, dict[str, Any]]:
    """The architecture's own name and the model arguments that its description carries."""
    import timm

    import patchknn.encoder.nic_cnn  # noqa: F401 -- so that timm knows its name

    source, colon, model = name.partition(":")
    if colon:
        return _read_description(name, source, model)
    if "/" in name:
        message = f"No backbone {name!r}: write hf-hub:{name} or local-dir:{name}."
        raise UsageError(message)
    if not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = (
            f"; the nearest are {', '.join(close)}." if close else "; timm.list_models() has them."
        )
        message = f"timm has no backbone {name!r}{hint}"
        raise UsageError(message)
    return name, {}


def _read_description(name: str, source: str, model: str) -> tuple[str, dict[str, Any]]:
    from timm.models import _hub

    readers = {
        "hf-hub": _hub.load_model_config_from_hf,
        "hf_hub": _hub.load_model_config_from_hf,
        "local-dir": getattr(_hub, "load_model_config_from_path", None),
    }
    read = readers.get(source)
    if read is None:
        message = f"No backbone {name!r}: a name with a colon begins with hf-hub: or local-dir:."
        raise UsageError(message)
    try:
        _, architecture, arguments = read(model)
    except Exception as error:  # noqa: BLE001 -- the hub's own exceptions differ by its version
        raise _unavailable(name, error) from None
    return str(architecture), dict(arguments or {})


def _create(name: str, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
    import timm

    # Its retries, a line each, would drown the one sentence that says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        module: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=0, **_with_layers(arguments)
        )
    except TypeError as error:
        message = f"Backbone {name} does not take these --model-arg {arguments}: {error}"
        raise UsageError(message) from None
    except Exception as error:
        if pretrained:
            raise _unavailable(name, error) from None
        message = f"Backbone {name} cannot be made with {arguments}: {error}"
        raise UsageError(message) from error
    return module


def _check_pretrained(name: str) -> None:
    """Some of timm's models have no weights, and older versions then go on with random ones."""
    import timm

    configuration = None if ":" in name else timm.get_pretrained_cfg(name.partition(".")[0])
    if configuration is not None and not configuration.has_weights:
        message = (
            f"There are no pretrained weights of {name}: leave --pretrained away and train it from "
            "scratch, or give --weights FILE."
        )
        raise UsageError(message)


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


def _unavailable(name: str, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "on", "yes"}
    state = "HF_HUB_OFFLINE is set" if offline else "set HF_HUB_OFFLINE=1 to use only the cache"
    message = (
        f"The pretrained weights of {name} cannot be had ({reason.rstrip('.')}): on a node without "
        f"internet give --weights FILE, or fill the Hugging Face cache beforehand ({state})."
    )
    return InputError(message)


def _fix_image_size(architecture: str, arguments: dict[str, Any], input_size: int | None) -> None:
    """Transformers are built for one image size: pass it on, and with it into the bundle."""
    import timm

    configuration = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    own = configuration.input_size[-1] if configuration is not None else None
    if input_size is None or configuration is None or input_size == own:
        return
    if configuration.fixed_input_size and "dynamic_img_size" not in arguments:
        arguments.setdefault("img_size", input_size)


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
