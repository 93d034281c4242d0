"""Claims on units of work through a shared folder, so that none is done by two processes.

A process writes one complete file that says who it is, and claims a unit by a hard link to it:
``os.link`` fails where the name exists, on every file system and node alike. The file's time is
renewed while the process lives; as all its claims are the same file, one renewal serves them all.
A stale claim is never moved or deleted by another process; it is outbid by linking the next
number (``UNIT.0``, ``UNIT.1``, …), which exactly one of them can. The highest number holds.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Self
from urllib.parse import quote

from patchknn.errors import PatchknnError
from patchknn.files import errors_named
from patchknn.jobs.process import has_ended, task_name, this_process

CLAIMS = ".claims"
_HOLDER = "holder-"
_NAME_LIMIT = 120
_ATTEMPTS = 100


class Claims:
    """This process's claims in ``folder``; a context manager that releases them all.

    ``stale_after``: seconds without renewal after which a claim may be taken over; the claim of
    a process of this machine that no longer runs may be at once. Not to be carried over a fork.
    """

    def __init__(self, folder: Path, stale_after: float = 120.0) -> None:
        self._folder = folder
        self._stale_after = stale_after
        self._token = secrets.token_hex(8)
        self._holder = folder / f"{_HOLDER}{socket.gethostname()}-{os.getpid()}-{self._token}"
        self._held: dict[str, int] = {}
        self._closed = threading.Event()
        self._heart: threading.Thread | None = None

    def claim(self, unit: str) -> bool:
        """Take a unit; False where a living process has it. A unit held already stays held."""
        if unit in self._held:
            return True
        for _ in range(_ATTEMPTS):
            try:
                return self._try_claim(unit)
            except FileNotFoundError:  # another process tidied the folder away; make it again
                continue
        message = f"{self._folder} disappears again and again; another program deletes it."
        raise PatchknnError(message)

    def holder(self, unit: str) -> str | None:
        """``HOST, process PID`` of whoever holds a unit, or None."""
        numbers = self._numbers(unit)
        owner = _owner(self._link(unit, numbers[-1])) if numbers else None
        return f"{owner['host']}, process {owner['pid']}" if owner else None

    def holds(self, unit: str) -> bool:
        """Whether a claim is still this process's own: one that was stopped for long is outbid."""
        numbers = self._numbers(unit)
        return unit in self._held and bool(numbers) and numbers[-1] == self._held[unit]

    def release(self, unit: str) -> None:
        """Give a unit back; does nothing for one that is not held."""
        mine = self._held.get(unit)
        if mine is None:
            return
        # Lowest first: while any is left, the highest of them is this living process's.
        for number in self._numbers(unit):
            if number <= mine:
                self._link(unit, number).unlink(missing_ok=True)
        del self._held[unit]  # last: a signal may come in between, and then close() goes on

    def close(self) -> None:
        """Release everything, and leave no trace where no other process has claims."""
        self._closed.set()
        if self._heart is not None:
            self._heart.join()
        for unit in list(self._held):
            self.release(unit)
        self._drop_links()
        self._forget_the_dead()
        try:
            self._folder.rmdir()
        except OSError:  # others are at work, or it was never made
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_claim(self, unit: str) -> bool:
        self._announce()
        numbers = self._numbers(unit)
        if numbers and not self._is_stale(self._link(unit, numbers[-1])):
            return False
        mine = numbers[-1] + 1 if numbers else 0
        try:
            os.link(self._holder, self._link(unit, mine))
        except FileExistsError:
            if not self._is_mine(self._link(unit, mine)):
                return False
        except OSError as error:
            if error.errno in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
                message = f"{self._folder} is on a file system without hard links; use another."
                raise PatchknnError(message) from None
            raise
        if self._numbers(unit)[-1:] != [mine]:  # seen between two deletions of a release
            self._link(unit, mine).unlink(missing_ok=True)
            return False
        self._held[unit] = mine
        return True

    def _is_mine(self, link: Path) -> bool:
        # A network file system may repeat a request that succeeded, and report that it failed.
        try:
            return link.samefile(self._holder)
        except FileNotFoundError:
            return False

    def _announce(self) -> None:
        if self._holder.exists():
            os.utime(self._holder)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        identity = {**this_process(), "task": task_name() or "", "token": self._token}
        temporary = self._holder.with_name(f".tmp-{self._token}")
        with errors_named(self._folder):
            temporary.write_text(json.dumps(identity), encoding="utf-8")
            os.replace(temporary, self._holder)
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._heart.start()

    def _beat(self) -> None:
        while not self._closed.wait(self._stale_after / 4):
            try:
                os.utime(self._holder)
            except OSError:  # gone with its folder, or the server is away: try again
                continue

    def _is_stale(self, link: Path) -> bool:
        owner = _owner(link)
        try:
            renewed = link.stat().st_mtime
            # This process's own file was renewed just now by the same clock, the file server's.
            now = self._holder.stat().st_mtime
        except FileNotFoundError:  # released in between: the next look will tell
            return False
        if owner is not None and has_ended(owner):
            return True
        return now - renewed > self._stale_after

    def _drop_links(self) -> None:
        # A signal may have come between linking a claim and noting it: all links are one file.
        self._holder.with_name(f".tmp-{self._token}").unlink(missing_ok=True)
        for file in self._files():
            if file != self._holder and self._is_mine(file):
                prefix, _, number = file.name.rpartition(".")
                for lower in range(int(number) + 1):
                    file.with_name(f"{prefix}.{lower}").unlink(missing_ok=True)
        self._holder.unlink(missing_ok=True)

    def _forget_the_dead(self) -> None:
        now = _time_of(self._folder)
        for file in self._files():
            if file.name.startswith((_HOLDER, ".tmp-")):
                owner = _owner(file)
                try:
                    old = now - file.stat().st_mtime > 10 * self._stale_after
                except FileNotFoundError:
                    continue
                if old or (owner is not None and has_ended(owner)):
                    file.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        try:
            yield from list(self._folder.iterdir())
        except FileNotFoundError:
            return

    def _numbers(self, unit: str) -> list[int]:
        prefix = f"{_file_name(unit)}."
        tails = (f.name[len(prefix) :] for f in self._files() if f.name.startswith(prefix))
        return sorted(int(tail) for tail in tails if tail.isdigit())

    def _link(self, unit: str, number: int) -> Path:
        return self._folder / f"{_file_name(unit)}.{number}"


def living_owners(
    folder: Path, units: Iterable[str], stale_after: float = 120.0
) -> dict[str, dict[str, str]]:
    """Who has which of ``units``: what each living owner says of itself, by unit."""
    names = {_file_name(unit): unit for unit in units}
    highest: dict[str, int] = {}
    try:
        files = os.listdir(folder)  # noqa: PTH208  there may be thousands
    except OSError:
        return {}
    for file in files:
        prefix, _, number = file.rpartition(".")
        if prefix in names and number.isdigit():
            highest[prefix] = max(highest.get(prefix, 0), int(number))
    owners: dict[str, dict[str, str]] = {}
    now = _time_of(folder) if highest else 0.0
    for prefix, last in highest.items():
        link = folder / f"{prefix}.{last}"
        owner = _owner(link)
        try:
            age = now - link.stat().st_mtime
        except OSError:
            continue
        if owner is not None and not has_ended(owner) and age <= stale_after:
            owners[names[prefix]] = owner
    return owners


def _time_of(folder: Path) -> float:
    """What time it is by the clock that files are renewed by: a host's own may be quite another."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".tmp-") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # of an archive that may only be read, or none is there
        return time.time()


def _owner(link: Path) -> dict[str, str] | None:
    try:
        value = json.loads(link.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and {"host", "pid", "node"} <= set(value) else None


def _file_name(unit: str) -> str:
    digest = blake2b(unit.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"{quote(unit, safe='', errors='replace')[:_NAME_LIMIT]}-{digest}"
