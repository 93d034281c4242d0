"""A slide model as a directory: what it is as JSON, its weights as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchknn.bundle import load_safetensors, tensor_digest
from patchknn.bundle_files import damaged, fingerprint_of
from patchknn.errors import ConflictError, InputError
from patchknn.files import fsync_file, read_json, write_json
from patchknn.wholeslide.grids.grid import Grid
from patchknn.wholeslide.models.making import make_network
from patchknn.wholeslide.tasks.reading import task_from_json
from patchknn.wholeslide.tasks.task import Task

DESCRIPTION_FILE = "slide_model.json"
WEIGHTS_FILE = "weights.safetensors"
FORMAT, FORMAT_VERSION = "patchknn-slide-model", 1


@dataclass(frozen=True)
class SlideModel:
    """A network for grids, the task it answers, and of which grids it takes: see ``GridInfo``."""

    model: str
    shape: Mapping[str, Any]
    task: Task
    dim: int
    encoder: str
    patch_px: int
    stride_px: int
    mpp: float
    network: nn.Module
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def check_grid(self, path: Path, grid: Grid) -> None:
        """Raise ConflictError where a grid is not of the kind that the model was trained on."""
        info = grid.info
        told = {
            "the encoder": (info.encoder, self.encoder),
            "the features per place": (grid.features.shape[1], self.dim),
            "the patch size": (info.patch_px, self.patch_px),
            "the stride": (info.stride_px, self.stride_px),
            "the µm/px": (info.mpp, self.mpp),
        }
        for what, (given, wanted) in told.items():
            if given != wanted:
                message = (
                    f"{path}: {what} is {given}, and the slide model was trained with {wanted}; "
                    "compress the slide as those it was trained on."
                )
                raise ConflictError(message)


def write_slide_model(directory: Path, model: SlideModel) -> str:
    """Write a model into a directory that is there; its fingerprint."""
    from safetensors.torch import save_file

    state = {name: v.detach().cpu().contiguous() for name, v in model.network.state_dict().items()}
    save_file(state, directory / WEIGHTS_FILE)
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.model,
        "shape": dict(model.shape),
        "task": model.task.as_json(),
        "dim": model.dim,
        "encoder": model.encoder,
        "patch_px": model.patch_px,
        "stride_px": model.stride_px,
        "mpp": model.mpp,
        "training": dict(model.training),
        "metrics": dict(model.metrics),
        "digests": {"weights": tensor_digest({n: v.numpy() for n, v in state.items()})},
    }
    content["fingerprint"] = fingerprint_of(content)
    write_json(directory / DESCRIPTION_FILE, content)
    fsync_file(directory / WEIGHTS_FILE)
    return str(content["fingerprint"])


def load_slide_model(directory: Path, device: torch.device | None = None) -> SlideModel:
    """Read a model, its network in evaluation mode on ``device`` (the CPU by default).

    Raises InputError where it is none or of a newer format, DamageError where it was changed.
    """
    file = directory / DESCRIPTION_FILE
    if not file.is_file():
        message = f"{directory} is not a slide model: it has no {DESCRIPTION_FILE}."
        raise InputError(message)
    content = read_json(file)
    if content.get("format") != FORMAT or not isinstance(content.get("format_version"), int):
        message = f"{file} does not describe a slide model of patchknn."
        raise InputError(message)
    if content["format_version"] > FORMAT_VERSION:
        version = content["format_version"]
        message = f"{file} is of format {version}, and this patchknn reads 1: update it."
        raise InputError(message)
    if content.get("fingerprint") != fingerprint_of(content):
        raise damaged(directory)
    if not (directory / WEIGHTS_FILE).is_file():
        message = f"{directory} is not a complete slide model: it has no {WEIGHTS_FILE}."
        raise InputError(message)
    tensors = load_safetensors(directory / WEIGHTS_FILE)
    if content["digests"]["weights"] != tensor_digest(tensors):
        raise damaged(directory)
    task = task_from_json(content["task"])
    network = make_network(content["model"], content["dim"], task.outputs, content["shape"])
    network.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in tensors.items()})
    return SlideModel(
        model=content["model"],
        shape=content["shape"],
        task=task,
        network=network.eval().to(device or torch.device("cpu")),
        fingerprint=content["fingerprint"],
        **{name: content[name] for name in _PLAIN},
    )


_PLAIN = ("dim", "encoder", "patch_px", "stride_px", "mpp", "training", "metrics")
