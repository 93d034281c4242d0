"""A job of the stand-in, and the variables that its processes see."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


@dataclass
class Job:
    """A job, or one task of an array: ``name`` is how Slurm writes it, ``7`` or ``7_2``."""

    id: int
    array: int | None
    task: int | None
    options: dict[str, str]
    words: list[str]
    environment: dict[str, str]
    folder: Path
    state: str = "PENDING"
    code: int | None = None
    restarts: int = 0
    requeued: bool = False
    cancelled: bool = False
    due: bool = True
    shell: subprocess.Popen[bytes] | None = None
    steps: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.id) if self.array is None else f"{self.array}_{self.task}"

    @property
    def root(self) -> int:
        """The number that sbatch said."""
        return self.array or self.id

    @property
    def output(self) -> Path:
        default = "slurm-%j.out" if self.array is None else "slurm-%A_%a.out"
        pattern = self.options.get("output", default)
        values = {"%j": self.id, "%J": self.id, "%A": self.root, "%a": self.task}
        return self.folder / re.sub("%[jJAa]", lambda found: str(values[found[0]]), pattern)


def variables_of(job: Job) -> dict[str, str]:
    """As Slurm gives them to a batch script."""
    options = job.options
    nodes = int(options.get("nodes", 1))
    values: dict[str, Any] = {
        "SLURM_JOB_ID": job.id,
        "SLURM_JOB_NAME": options["job-name"],
        "SLURM_SUBMIT_DIR": job.folder,
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": nodes,
        "SLURM_PROCID": 0,
        "SLURM_LOCALID": 0,
        "SLURM_NODEID": 0,
        "SLURMD_NODENAME": "localhost",
    }
    if "ntasks" in options:
        values["SLURM_NTASKS"] = options["ntasks"]
    if "ntasks-per-node" in options:
        values["SLURM_NTASKS"] = nodes * int(options["ntasks-per-node"])
    if "cpus-per-task" in options:
        values["SLURM_CPUS_PER_TASK"] = options["cpus-per-task"]
    if job.array is not None:
        values |= {"SLURM_ARRAY_JOB_ID": job.array, "SLURM_ARRAY_TASK_ID": job.task}
    return {name: str(value) for name, value in values.items()}
