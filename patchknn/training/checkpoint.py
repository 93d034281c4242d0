"""The state of a run as one safetensors file, replaced whole: tensors, and JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchknn.errors import DamageError
from patchknn.files import replaced_atomically

CHECKPOINT_FILE = "checkpoint.safetensors"
Groups = dict[str, dict[str, Tensor]]


def partial_folder(output: Path) -> Path:
    """Where an unfinished run keeps its state: ``<ENCODER>.partial``."""
    return output.with_name(f"{output.name}.partial")


def write_checkpoint(
    folder: Path, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Write groups of named tensors and a JSON state; another process sees the old or the new."""
    from safetensors.torch import save_file

    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(folder / CHECKPOINT_FILE) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(dict(state))})


def read_checkpoint(folder: Path) -> tuple[Groups, dict[str, Any]] | None:
    """The groups and the state, or None where there is no checkpoint; raises DamageError."""
    file = folder / CHECKPOINT_FILE
    if not file.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    groups: Groups = {}
    try:
        with safe_open(file, framework="pt") as content:
            state = json.loads(content.metadata()["state"])
            for key in content.keys():  # noqa: SIM118  (not a mapping)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = content.get_tensor(key)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        message = f"{file} is damaged ({error}); delete {folder} to train from the beginning."
        raise DamageError(message) from None
    return groups, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, by ``number.name``."""
    return {
        f"{number}.{name}": value
        for number, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what ``optimizer_tensors`` took."""
    state = optimizer.state_dict()
    memory: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        memory.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**state, "state": memory})
