"""Weights in plain safetensors that say of which backbone they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from patchknn.errors import InputError
from patchknn.files import replaced_atomically

_KEY = "patchknn"  # of the text that safetensors carries beside its tensors
_FORMAT = 1


@dataclass(frozen=True)
class WeightsDescription:
    """What a file of weights says of itself.

    ``name`` and ``asked_args`` are as the backbone was asked for; ``architecture``,
    ``model_args`` and ``configuration`` (``mean``, ``std``, ``input_size``) make it again without
    a network. ``license`` and ``origin`` are as timm has them.
    """

    name: str
    asked_args: Mapping[str, Any]
    architecture: str
    model_args: Mapping[str, Any]
    configuration: Mapping[str, Any]
    license: str | None
    origin: str | None
    timm_version: str


def weights_file_name(name: str) -> str:
    """``hf-hub:owner/model`` → ``owner--model.safetensors``; of a local folder its last name."""
    source, colon, model = name.partition(":")
    if source == "local-dir":
        model = Path(model).resolve().name
    text = model if colon else name
    return re.sub(r"[^\w.@+-]", "_", text.replace("/", "--"), flags=re.ASCII) + ".safetensors"


def write_weights(
    file: Path, tensors: Mapping[str, Tensor], description: WeightsDescription
) -> None:
    """Write tensors and their description atomically; an OSError names the file."""
    from safetensors.torch import save_file

    told = {"format": _FORMAT, **asdict(description)}
    # One text: safetensors writes several in any order, and the same weights are to be one SHA-256.
    metadata = {_KEY: json.dumps(told, ensure_ascii=False, sort_keys=True)}
    with replaced_atomically(file) as temporary:
        save_file(_apart(tensors), temporary, metadata)


def read_description(file: Path) -> WeightsDescription | None:
    """What a file says of itself; None where it says nothing, as files of others.

    Raises InputError where it claims to be safetensors and is not whole.
    """
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            text = (content.metadata() or {}).get(_KEY)
    except (SafetensorError, ValueError, OSError) as error:
        message = f"{file} is not a readable safetensors file: {error}"
        raise InputError(message) from None
    if text is None:
        return None
    try:
        told = json.loads(text)
        if told.pop("format") > _FORMAT:
            message = f"{file} is of a newer format than this patchknn knows; update it."
            raise InputError(message)
        return WeightsDescription(**told)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Weights that two layers share are written twice: safetensors refuses one memory for two names.
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        result[name] = plain.clone() if address in seen else plain
        seen.add(address)
    return result
