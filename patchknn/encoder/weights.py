"""Foreign weights: state dicts in safetensors or torch's format, fitted to a backbone's names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchknn.errors import InputError

# Where training scripts put the network inside a checkpoint, the averaged one first.
_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
)
_HEADS = ("head.", "head_dist.", "heads.", "fc.", "classifier.", "last_linear.", "aux.")


def load_weights(module: nn.Module, file: Path) -> None:
    """Load a state dict into a backbone that has no classifier.

    A common prefix (``module.``, ``model.``, ``backbone.``, ...) is taken off, classifier keys
    are left out, half precision becomes float32, and what timm knows to convert (position
    embeddings of another image size) is converted. Raises InputError where the file cannot be
    read or belongs to another backbone, naming the keys.
    """
    expected = module.state_dict()
    state = _own_part(read_state_dict(file), expected)
    if _differences(state, expected, module):
        state = _converted_by_timm(state, module)
    differences = _differences(state, expected, module)
    if differences:
        message = f"{file} holds weights of another backbone: {'; '.join(differences)}."
        raise InputError(message)
    wanted = {name: state.get(name, expected[name]) for name in expected}
    module.load_state_dict(wanted)


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Tensors by name from ``.safetensors`` or from a file of torch's own format.

    torch's format is read with ``weights_only=True``, so no code in it runs. Raises InputError.
    """
    if not file.is_file():
        message = f"{file} does not exist."
        raise InputError(message)
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    while not any(isinstance(value, Tensor) for value in content.values()):
        inner = next(
            (content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None
        )
        if inner is None:
            message = f"{file} holds no tensors: its entries are {_some(content)}."
            raise InputError(message)
        content = inner
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, ValueError, OSError) as error:
        message = f"{file} is not a readable safetensors file: {error}"
        raise InputError(message) from None


def _read_torch(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 -- on bytes that are no pickle, torch raises anything
        message = (
            f"{file} is not a file of plain tensors: save it with "
            "torch.save(model.state_dict(), FILE) or as safetensors."
        )
        raise InputError(message) from None
    if not isinstance(content, dict):
        message = f"{file} holds a {type(content).__name__}, not a state dict."
        raise InputError(message)
    return content


def _own_part(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below the prefix under which most of the expected names are found."""
    counts = {"": sum(name in expected for name in state)}
    for name in state:
        for start in range(len(name)):
            if name[start - 1 : start] == "." and name[start:] in expected:
                prefix = name[:start]
                counts[prefix] = counts.get(prefix, 0) + 1
    best = max(counts, key=lambda prefix: (counts[prefix], "teacher" in prefix, -len(prefix)))
    return {name.removeprefix(best): state[name] for name in state if name.startswith(best)}


def _converted_by_timm(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), module))
    except (KeyError, RuntimeError, AttributeError, ValueError, TypeError):  # not of that family
        return state


def _differences(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], module: nn.Module
) -> list[str]:
    missing = [name for name in expected if name not in state and "num_batches_tracked" not in name]
    heads = (*_HEADS, *_classifier_prefixes(module))
    unexpected = [name for name in state if name not in expected and not name.startswith(heads)]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    parts = (("lacks", missing), ("has unknown", unexpected), ("has other shapes for", reshaped))
    return [f"it {verb} {_some(names)}" for verb, names in parts if names]


def _classifier_prefixes(module: nn.Module) -> list[str]:
    configuration = getattr(module, "pretrained_cfg", None) or {}
    names = configuration.get("classifier") or ()
    return [f"{name}." for name in ([names] if isinstance(names, str) else names)]


def _some(names: Iterable[str], shown: int = 3) -> str:
    listed = list(names)
    text = ", ".join(listed[:shown])
    return text if len(listed) <= shown else f"{text} and {len(listed) - shown} more"
