"""How many processors this process may use, and for what."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Processors that Slurm gave this task, else those this process may run on; at least 1.

    The processes that torchrun starts on a node share what it may run on.
    """
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if granted.isdigit():
        allowed = min(int(granted), allowed or 1)
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "") if "TORCHELASTIC_RUN_ID" in os.environ else ""
    return max((allowed or 1) // (int(sharing) if sharing.isdigit() else 1), 1)


def reader_processes(asked: int | None, device: str) -> int:
    """How many processes read patches for an encoder on a ``device``: as ``asked``, if it was."""
    if asked is not None:
        return asked
    # On CPUs the encoder needs them: one reader in four is enough to keep it fed.
    cpus = available_cpus()
    return max(1, cpus // 4) if device == "cpu" else min(cpus, 8)
