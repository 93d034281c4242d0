"""What a backbone's name stands for: timm's own, ``hf-hub:owner/model`` or ``local-dir:FOLDER``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchknn.encoder.hub import asking
from patchknn.encoder.weight_files import read_description
from patchknn.errors import InputError, UsageError


@dataclass(frozen=True)
class Model:
    """A backbone before it is made.

    ``architecture`` is timm's own name for it, ``model_args`` what its description builds it
    with. ``configuration`` is what the description says beside that (``mean``, ``std``,
    ``input_size``, ...), empty where timm knows. ``place`` has its pretrained weights: a model on
    the Hugging Face hub, an address, or "" for none, and for what lies on this machine.
    """

    architecture: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""


def resolve(name: str, remedy: str, weights: Path | None = None) -> Model:
    """What ``name`` stands for.

    A file of ``weights`` that was fetched under this name says so itself, and no network is
    asked. ``remedy`` is for the error where one is, and is not there. Raises UsageError for an
    unknown name (with the nearest ones), InputError where its description cannot be had.
    """
    source, colon, model = name.partition(":")
    if colon:
        told = None if weights is None else read_description(weights)
        if told is not None and told.name == name:
            return Model(told.architecture, told.model_args, told.configuration)
        return _read_configuration(name, source, model, remedy)
    if "/" in name:
        message = f"No backbone {name!r}: write hf-hub:{name} or local-dir:{name}."
        raise UsageError(message)
    return Model(name, place=_place(name))


def _place(name: str) -> str:
    """Where timm finds the weights of one of its own names."""
    import timm
    from timm.models import _registry

    import patchknn.encoder.nic_cnn  # noqa: F401 -- so that timm knows its name

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = (
            f"; the nearest are {', '.join(close)}." if close else "; timm.list_models() has them."
        )
        message = f"timm has no backbone {name!r}{hint}"
        raise UsageError(message)
    renamed = getattr(_registry, "_deprecated_models", {})
    try:
        configuration = timm.get_pretrained_cfg(renamed.get(name) or name)
    except RuntimeError:
        known = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none at all"
        message = f"timm has no weights {tag!r} of {architecture}; it has {known}."
        raise UsageError(message) from None
    if configuration is None:
        return ""
    url = configuration.url or ""  # some name the file beside it
    return str(configuration.hf_hub_id or (url if isinstance(url, str) else url[0]))


def _read_configuration(name: str, source: str, model: str, remedy: str) -> Model:
    import timm
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
    place = "" if source == "local-dir" else model
    with asking(name, place, remedy):
        try:
            configuration, architecture, arguments = read(model)
        except KeyError:
            message = f"{name} is no model of timm: its config.json names no architecture."
            raise InputError(message) from None
    if not timm.is_model(str(architecture).partition(".")[0]):
        message = (
            f"{name} is a {architecture}, which timm {timm.__version__} does not know: update timm."
        )
        raise InputError(message)
    return Model(str(architecture), dict(arguments or {}), dict(configuration), place)
