"""A process that has imported everything and forks a child for each request.

To start an interpreter takes a second where cores are shared; a fork takes a millisecond, and is
killed, starved and sandboxed like any process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

Tell = Callable[[Any], None]
Task = Callable[[dict[str, Any], Tell], None]
_READY = "ready"


class Reply(NamedTuple):
    """What became of a child.

    ``events``: what it told, and how many seconds after its start; ``code`` negative where a
    signal ended it; ``error``: name, text and traceback of an exception; ``hung``: it was killed
    for that; ``err``: its stderr.
    """

    events: list[tuple[float, Any]]
    code: int
    error: tuple[str, str, str] | None
    hung: bool
    seconds: float
    err: str

    @property
    def told(self) -> list[Any]:
        """The events alone."""
        return [event for _, event in self.events]

    @property
    def crashed(self) -> bool:
        """Whether a signal ended it that nobody sent."""
        return self.code < 0 and not self.hung and self.code != -signal.SIGKILL


class Forker:
    """The parent's end: ``program`` calls ``serve``; a context manager."""

    def __init__(self, program: Path, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(program), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        kill_after: float | None = None,
        timeout: float = 60.0,
    ) -> Reply:
        """Run a task in a child of its own; SIGKILL after so many seconds of its work."""
        request = {
            "task": task,
            "arguments": dict(arguments),
            "kill_after": kill_after,
            "timeout": timeout,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the forking process ended: {self._process.wait()}"
        return Reply(**json.loads(line))

    def close(self) -> None:
        """End it; no child outlives its own request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)


def serve(tasks: Mapping[str, Task]) -> None:
    """The other end: requests from stdin, replies to stdout."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may reach the parent's pipe
    for line in sys.stdin:
        request = json.loads(line)
        reply = _run(tasks[request["task"]], request)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _run(task: Task, request: dict[str, Any]) -> dict[str, Any]:
    # What it prints comes by a pipe too: a file might be what it may not write.
    (told, tell), (printed, stderr) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.dup2(stderr, 2)
        os.dup2(stderr, 1)
        for end in (told, printed, stderr):
            os.close(end)
        _act(task, request["arguments"], tell)
    os.close(tell)
    os.close(stderr)
    watch = _Watch(child, told, printed, request)
    watch.run()
    _, status = os.waitpid(child, 0)
    events, error = watch.events, None
    if events and isinstance(events[-1][1], dict) and "exception" in events[-1][1]:
        error = events.pop()[1]["exception"]
    return {
        "events": events,
        "code": os.waitstatus_to_exitcode(status),
        "error": error,
        "hung": watch.hung,
        "seconds": watch.seconds,
        "err": watch.printed[-20_000:].decode(errors="replace"),
    }


def _act(task: Task, arguments: dict[str, Any], write_end: int) -> None:
    def tell(event: Any) -> None:
        data = json.dumps(event).encode() + b"\n"
        while data:
            data = data[os.write(write_end, data) :]

    code = 0
    try:
        faulthandler.enable(sys.__stderr__, all_threads=False)
        tell(_READY)
        task(arguments, tell)
    except BaseException as error:  # noqa: BLE001  the parent judges
        code = 1
        text = traceback.format_exc()
        tell({"exception": [type(error).__name__, str(error), text[-4000:]]})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _Watch:
    """Reads what a child tells and prints until both ends are closed; kills it in time."""

    def __init__(self, child: int, told: int, printed: int, request: dict[str, Any]) -> None:
        self.events: list[tuple[float, Any]] = []
        self.printed = b""
        self.hung = False
        self.seconds = 0.0
        self._child = child
        self._ends = {told, printed}
        self._told = told
        self._rest = b""
        self._kill_after = request["kill_after"]
        self._limit = time.monotonic() + request["timeout"]
        self._began: float | None = None
        self._killed = False

    def run(self) -> None:
        while self._ends:
            due = self._limit
            if self._began is not None and self._kill_after is not None:
                due = min(due, self._began + self._kill_after)
            left = None if self._killed else max(due - time.monotonic(), 0)
            ready, _, _ = select.select(list(self._ends), [], [], left)
            if not ready and not self._killed:
                self._killed, self.hung = True, time.monotonic() >= self._limit
                os.kill(self._child, signal.SIGKILL)  # not waited for yet: its id is its own
            for end in ready:
                data = os.read(end, 1 << 16)
                if not data:
                    os.close(end)
                    self._ends.discard(end)
                elif end == self._told:
                    self._take(data)
                else:
                    self.printed += data
        self.seconds = time.monotonic() - (self._began or time.monotonic())

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event == _READY:
                self._began = now
            else:
                self.events.append((now - (self._began or now), event))
