"""What the stand-in's commands run: they ask the cluster, and ``srun`` starts tasks itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # it runs isolated, from a folder that Python is not told of
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from slurm_options import read_options


def _ask(command: str, argv: list[Any]) -> int:
    request = {
        "command": command,
        "argv": argv,
        "cwd": str(Path.cwd()),
        "environment": {**os.environ},
    }
    with socket.create_connection(("127.0.0.1", int(os.environ["STANDIN"]))) as link:
        link.sendall(json.dumps(request).encode() + b"\n")
        code, text = json.loads(link.makefile().read())
    (sys.stderr if code else sys.stdout).write(f"{command}: error: {text}" if code else text)
    return int(code)


def _srun(words: list[str]) -> int:
    """The tasks of a step are children of this process, and die with the job's shell."""
    options, command = read_options(words)
    count = int(options.get("ntasks", os.environ.get("SLURM_NTASKS", "1")))
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
    }
    if "cpus-per-task" in options:
        step["SLURM_CPUS_PER_TASK"] = options["cpus-per-task"]
    else:
        os.environ.pop("SLURM_CPUS_PER_TASK", None)  # a job's own does not reach its steps
    tasks: list[subprocess.Popen[bytes]] = []
    early: list[int] = []
    codes: dict[int, int] = {}

    def send(number: int) -> None:
        for task in tasks:
            if task.pid not in codes:
                with suppress(ProcessLookupError):  # it ended a moment ago
                    os.kill(task.pid, number)

    def tell(number: int, _: object) -> None:
        if len(tasks) < count:
            early.append(number)
        else:
            send(number if number == signal.SIGUSR1 else signal.SIGKILL)

    signal.signal(signal.SIGUSR1, tell)
    signal.signal(signal.SIGTERM, tell)
    _ask("step", [os.getpid()])
    for rank in range(count):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        tasks.append(subprocess.Popen(command, env={**os.environ, **step, **own}))
    for number in early:
        tell(number, None)
    while len(codes) < count:
        pid, status = os.waitpid(-1, 0)
        code = os.waitstatus_to_exitcode(status)
        codes[pid] = code if code >= 0 else 128 - code
        if code and "kill-on-bad-exit" in options:
            send(signal.SIGTERM)
    return max(codes.values())


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    sys.exit(_srun(given) if name == "srun" else _ask(name, given))
