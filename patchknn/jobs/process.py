"""Who a process is: its machine, number and beginning, and the task of a scheduler that it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> dict[str, str]:
    """``host``, ``pid``, ``node`` (machine and namespace of pids), ``started``: text by name."""
    return {
        "host": host_name(),
        "pid": str(os.getpid()),
        "node": _node(),
        "started": _start_time(os.getpid()) or "",
    }


def host_name() -> str:
    """What this machine is called, by Slurm where it says so."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def has_ended(owner: dict[str, str]) -> bool:
    """Whether a process of this very machine (and pid namespace) is gone; else unknown: False."""
    if not owner["node"] or owner["node"] != _node() or not owner["pid"].isdigit():
        return False
    started = _start_time(int(owner["pid"]))
    if started is None and _is_anothers(int(owner["pid"])):
        return False  # /proc may hide it
    return started != (owner.get("started") or None)


def array_name() -> str | None:
    """The Slurm array that this process is a task of; None outside of one."""
    return os.environ.get("SLURM_ARRAY_JOB_ID") or None


def task_name() -> str | None:
    """What Slurm calls the part of a job that this process is: ``7``, ``7_3``, ``7_3.12``.

    The last is process 12 of a job step of several; None outside of Slurm.
    """
    array, job = array_name(), os.environ.get("SLURM_JOB_ID")
    name = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}" if array else job
    several = os.environ.get("SLURM_STEP_NUM_TASKS", "1") not in {"", "1"}
    process = os.environ.get("SLURM_PROCID")
    return f"{name}.{process}" if name and several and process else name or None


def _is_anothers(pid: int) -> bool:
    """Whether there is such a process, of another user."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _node() -> str:
    # Hosts in containers share names, and their process numbers mean nothing to each other.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """Clock ticks from boot to a process's start, which tell it from a later one of its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
