"""The processes of one run, started by torchrun or srun: each does a share, all see the whole."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn

from patchknn.errors import UsageError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MIXED: dict[str, Literal["bf16-mixed", "16-mixed"]] = {
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


class Ranks:
    """Who else is training, and how to agree with them; alone, everything here costs nothing.

    A batch is cut into as many consecutive slices as there are processes. Every process computes
    the loss of the whole batch from gathered embeddings, so that triplets span processes.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.rank, self.count = fabric.global_rank, fabric.world_size
        # As the loss scale of float16 begins: trainings that follow each other share what scales.
        self.scaler_state: dict[str, Any] = dict(fabric.strategy.precision.state_dict())
        # Counts and flags go from CPU to CPU: asking a GPU would make it wait at every step.
        self._control: Any = distributed.new_group(backend="gloo") if self.count > 1 else None

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def bounds(self, length: int) -> tuple[int, int]:
        """The slice of so many things that is this process's."""
        return self.rank * length // self.count, (self.rank + 1) * length // self.count

    def share(self, numbers: Sequence[int]) -> list[int]:
        """This process's part of a list; the parts of all, in order of rank, are the list."""
        start, end = self.bounds(len(numbers))
        return list(numbers[start:end])

    def largest_share(self, length: int) -> int:
        """How many of so many things a process has at most."""
        return -(-length // self.count)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (b, ...) of every process, in order of rank: (B, ...).

        The gradients of all processes flow back, so that each part gets ``count`` times what one
        process would give it: data-parallel averaging divides by that again. Numbers of rows may
        differ.
        """
        if self.count == 1:
            return rows
        counts = self._counts(len(rows))
        missing = max(counts) - len(rows)
        padded = torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])
        every: Any = self.fabric.all_gather(padded, sync_grads=rows.requires_grad)
        return torch.cat([part[:count] for part, count in zip(every, counts, strict=True)])

    def gather_arrays(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same for arrays that carry no gradient."""
        if self.count == 1:
            return values
        gathered = self.gather(torch.from_numpy(np.ascontiguousarray(values)).to(self._device))
        result: npt.NDArray[Any] = gathered.cpu().numpy()
        return result

    def gather_reasons(self, own: Mapping[int, str]) -> dict[int, str]:
        """What the processes say of numbered things, put together."""
        if self.count == 1:
            return dict(own)
        line = json.dumps(list(own.items())) + "\n"
        every = self.gather_arrays(np.frombuffer(bytearray(line.encode("ascii")), np.uint8))
        lines = every.tobytes().decode("ascii").splitlines()
        return {number: reason for part in lines for number, reason in json.loads(part)}

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return flag
        value = torch.tensor(int(flag))
        distributed.all_reduce(value, distributed.ReduceOp.MAX, self._control)
        return bool(value)

    def share_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers; batch norm's are of each one's slices."""
        if self.count > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def as_first(self, value: float) -> float:
        """The value that the first process has."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(tensor, 0, self._control)
        return float(tensor)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier(self._control)

    @property
    def _device(self) -> torch.device:
        return self.fabric.device

    def _counts(self, own: int) -> list[int]:
        counts = torch.zeros(self.count, dtype=torch.int64)
        counts[self.rank] = own
        distributed.all_reduce(counts, group=self._control)
        return [int(count) for count in counts]


def choose_precision(name: str | None, device: torch.device) -> str:
    """The precision of that name, or the fastest that the device has without losing steps.

    Raises UsageError for float16 on a CPU.
    """
    if name is None:
        if device.type != "cuda":
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if name == "float16" and device.type != "cuda":
        message = "--precision float16 needs a GPU; use bfloat16 or float32."
        raise UsageError(message)
    return name


def join_ranks(device: torch.device, precision: str) -> Ranks:
    """Join the other processes of a torchrun or a job step of several tasks, or be alone.

    Raises UsageError for other devices than CPUs and GPUs, and where GPUs are fewer than the
    processes of this node.
    """
    from lightning_fabric import Fabric

    if device.type not in {"cpu", "cuda"}:
        message = f"--device {device.type} cannot train; use cpu or cuda."
        raise UsageError(message)
    _be_quiet()
    accelerator = device.type
    nodes, here = _started_with()
    common: dict[str, Any] = {"accelerator": accelerator}
    plugins: list[Any] = []
    if precision in _MIXED:
        from patchknn.training.mixed_precision import UnroundedInputs

        plugins.append(UnroundedInputs(_MIXED[precision], accelerator))
    if nodes * here == 1:
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

        devices = [device.index or 0] if accelerator == "cuda" else 1
        # Said, not guessed: inside a job that runs one process nobody else is to be waited for.
        return Ranks(Fabric(devices=devices, plugins=[LightningEnvironment(), *plugins], **common))
    if accelerator == "cuda" and torch.cuda.device_count() < here:
        message = (
            f"{here} processes were started on this node, and each sees "
            f"{torch.cuda.device_count()} GPUs: start as many as there are GPUs, and with Slurm "
            "ask for --gpus-per-node rather than --gpus-per-task."
        )
        raise UsageError(message)
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if not _torchrun():
        os.environ.update(_as_torchrun(nodes, here))
    fabric = Fabric(
        strategy="ddp",
        devices=here,
        num_nodes=nodes,
        plugins=[TorchElasticEnvironment(), *plugins],
        **common,
    )
    fabric.launch()
    atexit.register(_leave)
    return Ranks(fabric)


def _leave() -> None:
    # Threads of gloo that are still there when the process ends may abort it: a finished run would
    # fail. (Lightning does the same for NCCL alone.)
    if distributed.is_initialized():
        gc.collect()  # what still refers to the group keeps its threads
        distributed.destroy_process_group()


def _be_quiet() -> None:
    # Their remarks, a line from each process, would drown what patchknn says.
    for name in ("lightning.fabric", "lightning_fabric", "lightning_utilities.core.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*all_gather.* is deprecated.*")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


def first_started() -> bool:
    """Whether this process is the one that reports; known before the others are met."""
    nodes, here = _started_with()
    if nodes * here == 1:
        return True
    return int(os.environ["RANK" if _torchrun() else "SLURM_PROCID"]) == 0


def _torchrun() -> bool:
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys()


def _started_with() -> tuple[int, int]:
    """Nodes, and processes on each."""
    if _torchrun():
        world = int(os.environ["WORLD_SIZE"])
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        return max(1, world // here), here
    # A batch script has the job's variables too; only what srun starts has those of a step.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1") or 1)
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1") or 1)
    return nodes, max(1, tasks // nodes)


def _as_torchrun(nodes: int, here: int) -> dict[str, str]:
    """What torchrun would have set, from what srun sets."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    known = os.environ
    listed = known.get("SLURM_STEP_NODELIST", known.get("SLURM_NODELIST", "127.0.0.1"))
    # Steps of one job must not meet on one port.
    job, step = known.get("SLURM_JOB_ID", "0"), known.get("SLURM_STEP_ID", "0")
    number = int("".join(filter(str.isdigit, job + step)) or 0)
    return {
        "RANK": known["SLURM_PROCID"],
        "LOCAL_RANK": known["SLURM_LOCALID"],
        "GROUP_RANK": known.get("SLURM_NODEID", "0"),
        "WORLD_SIZE": str(nodes * here),
        "LOCAL_WORLD_SIZE": str(here),
        "MASTER_ADDR": known.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(listed)),
        "MASTER_PORT": known.get("MASTER_PORT", str(15000 + number % 10000)),
    }
