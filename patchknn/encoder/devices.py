"""Where the network runs: the device asked for, and no more threads than CPUs one may use."""

from __future__ import annotations

import os

import torch

from patchknn.errors import UsageError


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, or a GPU if there is one.

    Raises UsageError for an unknown name and for a GPU that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        message = f"--device {name} is no device; use cpu, cuda or cuda:0."
        raise UsageError(message) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        message = f"--device {name}: torch sees no GPU here ('patchknn doctor' says why); use cpu."
        raise UsageError(message)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        message = f"--device {name}: this machine has {torch.cuda.device_count()} GPUs."
        raise UsageError(message)
    if device.type not in {"cpu", "cuda", "mps", "xpu"}:
        message = f"--device {name} cannot run an encoder; use cpu, cuda or cuda:0."
        raise UsageError(message)
    return device


def limit_threads(threads: int | None = None) -> int:
    """Let torch use at most the CPUs this process may use (or ``threads``); return the number.

    More threads than CPUs wait for each other: on a shared node that is many times slower.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for variable in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "")
        if text.isdigit() and int(text) > 0:
            allowed = min(allowed or 1, int(text))
    chosen = max(1, min(threads or allowed or 1, allowed or 1))
    torch.set_num_threads(chosen)
    return chosen
