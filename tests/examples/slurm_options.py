"""Options of the stand-in's commands; one that is not known is an error: it may be misspelt."""

from __future__ import annotations

import shlex
from pathlib import Path

_FLAGS = frozenset({"parsable", "requeue", "wait", "kill-on-bad-exit", "noheader", "me"})
_VALUES = frozenset(
    {
        *("account", "array", "begin", "cpus-per-task", "dependency", "error", "export", "format"),
        "gpus",
        *("gpus-per-node", "job-name", "mem", "name", "nodes", "ntasks", "ntasks-per-node"),
        *("open-mode", "output", "partition", "qos", "signal", "states", "time"),
    }
)
_SHORT = {"-J": "job-name", "-e": "error", "-n": "ntasks", "-o": "output", "-t": "time"}


def read_options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options up to the first other word, the last of each, and what follows them."""
    options: dict[str, str] = {}
    left = list(words)
    while left and left[0] in _SHORT:
        name, value, *left = left
        options[_SHORT[name]] = value
    for number, word in enumerate(left):
        if not word.startswith("--"):
            return options, left[number:]
        name, separator, value = word[2:].partition("=")
        if name not in (_VALUES if separator else _FLAGS):
            message = f"unrecognized option '{word}'"
            raise ValueError(message)
        options[name] = value
    return options, []


def asked_in(script: Path) -> dict[str, str]:
    """The #SBATCH lines, which end at the first command."""
    options: dict[str, str] = {}
    for line in script.read_text(encoding="utf-8").splitlines():
        if line.startswith("#SBATCH "):
            words = shlex.split(line.removeprefix("#SBATCH "), comments=True)
            options |= read_options(words)[0]
        elif line.strip() and not line.startswith("#"):
            break
    return options


def asked_by(environment: dict[str, str]) -> dict[str, str]:
    names = {name: f"SBATCH_{name.upper().replace('-', '_')}" for name in _VALUES}
    return {name: environment[key] for name, key in names.items() if key in environment}


def array_tasks(array: str) -> list[int]:
    first, _, last = array.partition("%")[0].partition("-")
    return list(range(int(first), int(last or first) + 1))


def inherited(options: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    kept = dict(environment)
    words = options.get("export", "ALL").split(",")
    if "ALL" not in words:
        kept = {name: kept[name] for name in ("PATH", "STANDIN", *words) if name in kept}
    return kept | dict(word.split("=", 1) for word in words if "=" in word)
