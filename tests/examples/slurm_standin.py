"""A Slurm of one node for tests: ``sbatch``, ``srun``, ``scontrol``, ``squeue``, ``scancel``.

``Cluster`` runs the tasks of jobs at once, as local processes with Slurm's variables; the commands
talk to it through a socket. It does as Slurm 22.05 was seen to do where scripts depend on it: a
batch script runs from a copy; a signal with ``B:`` reaches its shell alone, without it the tasks of
``srun`` and not the shell; an end is SIGCONT and SIGTERM to all processes, SIGKILL after KillWait;
``srun`` hands SIGUSR1 on, and has its tasks killed at a SIGTERM; to requeue the bare number of an
array requeues all of it, and a cancelled job that requeues itself lives on.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from slurm_job import ENDED, Job, variables_of
from slurm_options import array_tasks, asked_by, asked_in, inherited, read_options

_HERE = Path(__file__).resolve().parent
_SLURM = re.compile("SLURM|SBATCH")
_COMMANDS = ("sbatch", "srun", "scontrol", "squeue", "scancel")


class Cluster:
    """``with Cluster(folder, environment) as cluster:`` its own environment has the commands."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], kill_wait: float = 30.0
    ) -> None:
        self.jobs: list[Job] = []
        self._folder, self.kill_wait = folder, kill_wait
        self._changed = threading.Condition(threading.RLock())
        self._hooks: list[tuple[str, Callable[[Job], None]]] = []
        self._number = 0
        self._server = _Server(("127.0.0.1", 0), self._answer)
        place = folder / "bin"
        place.mkdir(parents=True)
        for command in _COMMANDS:
            words = shlex.join(
                [sys.executable, "-I", "-S", str(_HERE / "slurm_commands.py"), command]
            )
            (place / command).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            (place / command).chmod(0o755)
        self.environment = {
            **{name: value for name, value in environment.items() if not _SLURM.match(name)},
            "PATH": f"{place}{os.pathsep}{environment['PATH']}",
            "STANDIN": str(self._server.server_address[1]),
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            for job in self.jobs:
                job.due, job.requeued = False, False
                self._signal(job, signal.SIGKILL)
        self.wait()
        self._server.shutdown()
        self._server.server_close()

    def wait(self, *, timeout: float = 240.0) -> None:
        """Until nothing runs any more; what waits then waits for what never comes."""
        with self._changed:
            quiet = self._changed.wait_for(lambda: not self._in("RUNNING"), timeout)
            assert quiet, [job for job in self.jobs if job.state == "RUNNING"]

    def task(self, name: str) -> Job:
        """The job or array task of a name."""
        return next(job for job in self.jobs if job.name == name)

    def on(self, text: str, action: Callable[[Job], None]) -> None:
        """Once a line with this text is printed by a task, do this to it; once."""
        self._hooks.append((text, action))

    def warn(self, job: Job) -> None:
        """What comes before the end of the time, or a preemption: the signal of ``--signal``."""
        who, _, rest = job.options.get("signal", "").rpartition(":")
        number = signal.Signals[f"SIG{rest.partition('@')[0]}"]
        with self._changed:
            self._signal(job, number, steps=who != "B", shell=who == "B")

    def end(self, job: Job) -> None:
        """SIGCONT and SIGTERM to all its processes, and SIGKILL to what is left after KillWait."""
        shell = job.shell
        with self._changed:
            for number in (signal.SIGCONT, signal.SIGTERM):
                self._signal(job, number)

        def kill() -> None:
            with self._changed:
                if job.shell is shell:
                    self._signal(job, signal.SIGKILL)

        timer = threading.Timer(self.kill_wait, kill)
        timer.daemon = True
        timer.start()

    def cancel(self, job: Job) -> None:
        """As ``scancel`` does."""
        with self._changed:
            if job.state == "RUNNING":
                job.cancelled = True
                self.end(job)
            elif job.state == "PENDING":
                job.state = "CANCELLED"

    def lose_node(self, job: Job) -> None:
        """All its processes are gone at once, and Slurm starts it anew elsewhere."""
        with self._changed:
            job.requeued = True
            self._signal(job, signal.SIGKILL)

    def let_time_pass(self) -> None:
        """What was to begin later begins."""
        with self._changed:
            for job in self.jobs:
                job.due = True
            self._schedule()

    def _in(self, *states: str) -> list[Job]:
        return [job for job in self.jobs if job.state in states]

    def _signal(self, job: Job, number: int, *, steps: bool = True, shell: bool = True) -> None:
        """To all processes of a job, which are one group; to its steps; or to its shell alone."""
        if job.state != "RUNNING" or job.shell is None:
            return
        try:
            if steps and shell:
                os.killpg(job.shell.pid, number)
            elif shell:
                job.shell.send_signal(number)
            else:
                for step in job.steps:
                    os.kill(step, number)
        except ProcessLookupError:  # it has just ended
            return

    def _schedule(self) -> None:
        for job in self._in("PENDING"):
            siblings = [other for other in self._in("RUNNING") if other.root == job.root]
            most = job.options.get("array", "").partition("%")[2]
            if job.due and self._may_start(job) and not (most and len(siblings) >= int(most)):
                job.state = "RUNNING"
                threading.Thread(target=self._run, args=(job,), daemon=True).start()
        self._changed.notify_all()

    def _may_start(self, job: Job) -> bool:
        for condition in filter(None, job.options.get("dependency", "").split(",")):
            kind, *numbers = condition.split(":")
            if kind == "singleton":
                own = job.options["job-name"]
                if any(other.options["job-name"] == own for other in self._in("RUNNING")):
                    return False
                continue
            for number in numbers:
                others = [other for other in self.jobs if str(other.root) == number]
                done = all(other.state in ENDED for other in others)
                good = done and all(other.state == "COMPLETED" for other in others)
                if not {"afterany": done, "afterok": good, "afternotok": done and not good}[kind]:
                    return False
        return True

    def _run(self, job: Job) -> None:
        restarted = {"SLURM_RESTART_COUNT": str(job.restarts)} if job.restarts else {}
        append = job.options.get("open-mode") == "append" or not job.restarts
        with job.output.open("ab" if append else "wb") as output:
            with self._changed:
                job.shell = subprocess.Popen(
                    job.words,
                    cwd=job.folder,
                    env={**job.environment, **restarted},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            reader = threading.Thread(target=self._read, args=(job, output), daemon=True)
            reader.start()
            code = job.shell.wait()
            with self._changed:  # what a batch script leaves behind does not outlive it
                self._signal(job, signal.SIGKILL)
            reader.join()
        with self._changed:
            job.code, job.shell = code if code >= 0 else 128 - code, None
            job.steps.clear()
            job.state = "COMPLETED" if code == 0 else "FAILED"
            if job.requeued:
                job.state, job.restarts = "PENDING", job.restarts + 1
            elif job.cancelled:
                job.state = "CANCELLED"
            job.requeued = job.cancelled = False
            self._schedule()

    def _read(self, job: Job, output: Any) -> None:
        for line in job.shell.stdout:  # type: ignore[union-attr]
            output.write(line)
            output.flush()
            for hook in list(self._hooks):
                if hook[0] in line.decode(errors="replace"):
                    self._hooks.remove(hook)
                    hook[1](job)

    def _answer(self, request: dict[str, Any]) -> tuple[int, str]:
        return getattr(self, f"_{request['command']}")(request)

    def _sbatch(self, request: dict[str, Any]) -> tuple[int, str]:
        options, (file, *arguments) = read_options(request["argv"])
        folder, environment = Path(request["cwd"]), request["environment"]
        options = asked_in(folder / file) | asked_by(environment) | options
        options.setdefault("job-name", Path(file).name)
        with self._changed:
            tasks = array_tasks(options["array"]) if "array" in options else [None]
            first = self._number + 1
            self._number += len(tasks)
            # The last task of an array has the array's own number.
            numbers = [first] if tasks == [None] else [*range(first + 1, first + len(tasks)), first]
            for task, number in zip(tasks, numbers, strict=True):
                spool = self._folder / f"job{number:05}" / "slurm_script"
                spool.parent.mkdir()
                spool.write_bytes((folder / file).read_bytes())
                spool.chmod(0o755)
                array = None if task is None else first
                job = Job(number, array, task, options, [str(spool), *arguments], {}, folder)
                job.due = "begin" not in options
                job.environment = inherited(options, environment) | variables_of(job)
                self.jobs.append(job)
            self._schedule()
            if "wait" in options:
                mine = [job for job in self.jobs if job.root == first]
                self._changed.wait_for(lambda: all(job.state in ENDED for job in mine))
                return max(job.code or 0 for job in mine), f"{first}\n"
        return 0, f"{first}\n" if "parsable" in options else f"Submitted batch job {first}\n"

    def _scontrol(self, request: dict[str, Any]) -> tuple[int, str]:
        verb, name = request["argv"]
        assert verb == "requeue", verb
        with self._changed:
            found = [job for job in self.jobs if name in {job.name, str(job.root)}]
            chosen = [job for job in found if not job.requeued]
            for job in chosen:
                if job.state == "RUNNING":
                    job.requeued = True
                    self.end(job)
                else:
                    job.state, job.restarts = "PENDING", job.restarts + 1
            self._schedule()
        return (0, "") if chosen else (1, "Invalid job id specified\n")

    def _scancel(self, request: dict[str, Any]) -> tuple[int, str]:
        for job in [job for job in self.jobs if request["argv"][0] in {job.name, str(job.root)}]:
            self.cancel(job)
        return 0, ""

    def _squeue(self, request: dict[str, Any]) -> tuple[int, str]:
        options, _ = read_options(request["argv"])
        assert options.get("format", "%i") == "%i", options
        states = options.get("states", "PENDING,RUNNING").split(",")
        found = [
            j
            for j in self._in(*states)
            if options.get("name", j.options["job-name"]) == j.options["job-name"]
        ]
        return 0, "".join(f"{job.name}\n" for job in found)

    def _step(self, request: dict[str, Any]) -> tuple[int, str]:
        """An srun is about to start its tasks, and hands signals on."""
        job = next(
            job for job in self.jobs if str(job.id) == request["environment"]["SLURM_JOB_ID"]
        )
        job.steps += request["argv"]
        return 0, ""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answer: Callable[..., tuple[int, str]]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    reply = answer(json.loads(self.rfile.readline()))
                except Exception as error:  # noqa: BLE001  the command says it
                    reply = (1, f"{type(error).__name__}: {error}\n")
                self.wfile.write(json.dumps(reply).encode())

        super().__init__(address, Handler)
