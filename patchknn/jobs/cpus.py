"""How many processors this process may use."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Processors that Slurm gave this task, else those this process may run on; at least 1."""
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min(int(granted), allowed or 1) if granted.isdigit() else allowed or 1, 1)
