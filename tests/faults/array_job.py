"""The tasks of an array run one command line at once; some are killed and started again.

A task asks before it goes on from a unit that it has claimed. Who started it says whether it is
killed then, and how many steps later: a kill falls while a unit is in hand.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import steps

from patchknn.cli.main import run as run_command
from patchknn.jobs.claims import Claims

_GO = b"."


class Kill(NamedTuple):
    """After so many claims, the task that makes the next one is killed so many steps later."""

    claims: int
    steps: int


def run_array(
    path: Path, words: Sequence[str], count: int, kills: Sequence[Kill]
) -> dict[str, Any]:
    """Run the command in ``count`` processes at once, and those that are killed once more.

    No task is killed twice. ``codes``: how each task ended, a kill as -9; ``claims`` of each.
    """
    selector = selectors.DefaultSelector()
    codes: list[list[int]] = [[] for _ in range(count)]
    claims: Counter[int] = Counter()
    waiting, condemned = deque(sorted(kills)), set()

    def start(task: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        child = os.fork()
        if not child:
            ours.close()
            _be_task(path, words, theirs)
        theirs.close()
        selector.register(ours, selectors.EVENT_READ, (task, child))
        return ours

    for connection in [start(task) for task in range(count)]:
        connection.send(_GO)  # all of them are there
    while selector.get_map():
        for key, _ in selector.select():
            (task, child), connection = key.data, key.fileobj
            assert isinstance(connection, socket.socket)
            if connection.recv(1):
                claims[task] += 1
                due = waiting and claims.total() > waiting[0].claims and task not in condemned
                if due:
                    condemned.add(task)
                connection.send(str(waiting.popleft().steps).encode() if due else _GO)
                continue
            _, status = os.waitpid(child, 0)
            selector.unregister(connection)
            connection.close()
            codes[task].append(os.waitstatus_to_exitcode(status))
            if codes[task] == [-signal.SIGKILL]:
                start(task).send(_GO)
    return {"codes": codes, "claims": [claims[task] for task in range(count)]}


def _be_task(path: Path, words: Sequence[str], connection: socket.socket) -> None:
    usual = Claims.claim

    def claim(claims: Claims, unit: str) -> bool:
        taken = usual(claims, unit)
        if taken:
            connection.send(b"?")
            answer = connection.recv(8)
            if answer != _GO:
                steps.arm(path, what="kill", at=1 + int(answer))
        return taken

    code = 1
    try:
        connection.recv(1)
        Claims.claim = claim  # type: ignore[method-assign]
        sys.argv = ["patchknn", *words]
        code = run_command(list(words))
    finally:
        os._exit(code)
