"""Pretrained weights as a file of their own, to be carried to where no network is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from patchknn.encoder.backbones import arguments_of, pretrained_module
from patchknn.encoder.hub_errors import home_of
from patchknn.encoder.names import Model, resolve
from patchknn.encoder.weight_files import (
    WeightsDescription,
    read_description,
    weights_file_name,
    write_weights,
)
from patchknn.errors import ConflictError, InputError


@dataclass(frozen=True)
class FetchedWeights:
    """A file of weights, what it says of itself, and whether it was there before."""

    file: Path
    description: WeightsDescription
    bytes: int
    sha256: str
    kept: bool


def fetch_weights(
    name: str,
    directory: Path,
    *,
    model_args: Mapping[str, Any] | None = None,
    force: bool = False,
) -> FetchedWeights:
    """Write what ``--pretrained`` gives the backbone ``name`` to a file in ``directory``.

    A whole file of the same name and ``model_args`` is kept, unless ``force``; another one in
    its place is a ConflictError. Raises UsageError for an unknown name or one without weights,
    InputError where they cannot be had, OSError where they cannot be written.
    """
    asked = dict(model_args or {})
    file = directory / weights_file_name(name)
    if file.exists() and not force:
        return _fetched(file, _same(file, name, asked), kept=True)
    remedy = _where_to_run()
    model = resolve(name, remedy)
    module = pretrained_module(name, model, arguments_of(model, asked, None), remedy)
    told = _describe(name, asked, model, module)
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(file, module.state_dict(), told)
    return _fetched(file, told, kept=False)


def _where_to_run() -> str:
    from huggingface_hub import constants

    before = "unset HF_HUB_OFFLINE and " if constants.HF_HUB_OFFLINE else ""
    return f"{before}run this on a node with internet, such as a login node"


def _same(file: Path, name: str, asked: dict[str, Any]) -> WeightsDescription:
    try:
        told = read_description(file)
    except InputError as error:
        message = f"{str(error).rstrip('.')}; give --force to fetch it anew."
        raise InputError(message) from None
    if told is not None and (told.name, told.asked_args) == (name, asked):
        return told
    other = "weights of unknown origin" if told is None else f"the weights of {told.name}"
    if told is not None and told.name == name:
        other = f"what other --model-arg make of {name} ({dict(told.asked_args)})"
    message = f"{file} holds {other}; give another DIR, or --force to replace it."
    raise ConflictError(message)


def _describe(
    name: str, asked: dict[str, Any], model: Model, module: nn.Module
) -> WeightsDescription:
    import timm

    known: dict[str, Any] = {**(vars(module).get("pretrained_cfg") or {}), **model.configuration}
    home = home_of(model.place) if model.place else str(known.get("file") or "")
    return WeightsDescription(
        name=name,
        asked_args=asked,
        architecture=model.architecture,
        model_args=dict(model.model_args),
        configuration={
            key: list(known[key]) for key in ("mean", "std", "input_size") if key in known
        },
        license=known.get("license"),
        origin=known.get("origin_url") or home or None,
        timm_version=timm.__version__,
    )


def _fetched(file: Path, told: WeightsDescription, *, kept: bool) -> FetchedWeights:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return FetchedWeights(file, told, file.stat().st_size, digest, kept)
