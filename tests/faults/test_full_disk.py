"""A disk that takes no more: one sentence, and the archive is what it was, or what was asked for.

Three ways to fill it: a file system of a few blocks (where mounting is allowed), a limit on the
size of files, and calls that are refused one by one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from random import Random

import pytest
from operations import OPERATIONS, World
from rich_archive import rich_archive
from steps import some
from wholeness import assert_nothing_left, assert_one_of, assert_whole

_FULL = "the disk is full; free some space and run the same command again"
_TOO_LARGE = "File too large"
_BLOCK = 4096
_EMBED_CALLS = 100  # in a long run too: it takes a second each


def _in_turn(long_faults, name, turn):
    """Where not all is tried, an operation is tried in one of two of the ways."""
    if not long_faults and list(OPERATIONS).index(name) % 2 != turn:
        pytest.skip("with --long-faults")


@pytest.fixture
def planned(copied, other):
    """``planned(name)``: what is asked of a copy of the archive, and what it may hold.

    First comes what it is without that, last what it is when all of it is done.
    """

    def plan(name):
        world = World(copied(), other)
        operation = OPERATIONS[name]
        arguments = operation.plan(world, world.rows, Random(name))
        done = [*operation.partly(arguments), arguments]
        return arguments, [world.rows, *(operation.after(world, world.rows, a) for a in done)]

    return plan


def _asked(name, path, arguments):
    """A command line where there is one, else the function: task and arguments for a child."""
    operation = OPERATIONS[name]
    if operation.command is None:
        return "operate", {"archive": str(path), "operations": [[name, arguments]]}
    return "command", {"archive": str(path), "command": operation.command(path, arguments)}


def _judge(reply, sentence, tally):
    """Whether it said that it was done; a failure is one sentence, no traceback and no crash."""
    assert not reply.crashed, reply
    assert not reply.hung, reply
    if reply.error is not None:  # a function, which raises what the command line puts in words
        assert reply.error[0] == "OSError", reply
        tally["raised"] += 1
        return False
    told = [event for event in reply.told if event[0] in {"exit", "done"}]
    assert told, reply
    failed = told[0][0] == "exit" and told[0][1] != 0
    lines = [line for line in reply.err.splitlines() if not line.startswith("{")]
    said = [line for line in lines if line.startswith("patchknn: ")]
    assert all(line.startswith(("patchknn: ", "warning: ")) for line in lines), reply.err
    assert len(said) == failed, reply.err
    if failed:
        assert told[0][1] == 1, reply
        assert sentence in said[0], said
    tally["said" if failed else "done"] += 1
    tally["done, with a warning"] += bool(not failed and lines)
    return not failed


def _check(path, done, states, tally):
    _, rows = assert_one_of(path, states[-1:] if done else states)
    tally["published, then said"] += not done and states[0] != rows == states[-1]
    tally["published in part"] += not done and rows in states[1:-1]
    assert_nothing_left(path)


@pytest.mark.parametrize("name", OPERATIONS)
def test_calls_that_are_refused_one_by_one(  # noqa: PLR0917
    planned, copied, children_for, long_faults, tally, name
):
    children = children_for(name)
    arguments, states = planned(name)

    def run(at, *, lasting=True):
        path = copied()
        task, asked = _asked(name, path, arguments)
        fault = {"what": "full", "at": at, "lasting": lasting}
        return path, children.ask(task, {**asked, "fault": fault})

    path, reply = run(0)
    assert reply.code == 0, reply
    steps = reply.told[-1][1]
    for lasting in (True, False):
        random = Random(f"{name} {lasting}")
        most = _EMBED_CALLS if name.startswith("embed") else steps
        for at in some(steps, random, most) if long_faults else [random.randint(1, steps)]:
            path, reply = run(at, lasting=lasting)
            _check(path, _judge(reply, _FULL, tally), states, tally)


@pytest.mark.parametrize("name", OPERATIONS)
def test_files_that_may_not_grow(  # noqa: PLR0917
    planned, copied, children_for, long_faults, tally, name
):
    _in_turn(long_faults, name, 0)
    children = children_for(name)
    arguments, states = planned(name)
    sizes = [0, 100, 700, 2000, 5000, 20_000]
    for size in sizes if long_faults else [Random(name).choice(sizes)]:
        path = copied()
        task, asked = _asked(name, path, arguments)
        reply = children.ask(task, {**asked, "file_size": size})
        _check(path, _judge(reply, _TOO_LARGE, tally), states, tally)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _leave(disk, blocks):
    """Fill a file system but for so many blocks."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk)
    left = free.f_bavail * free.f_frsize - blocks * _BLOCK
    assert left >= 0
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, left)
    return filler


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_small_disk_that_fills(  # noqa: PLR0917
    planned, worn, small_disk, children_for, long_faults, tally, name
):
    _in_turn(long_faults, name, 1)
    children = children_for(name)
    arguments, states = planned(name)
    path = small_disk / "copy" / "archive"

    def fresh():
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(worn / "archive", path)
        return _asked(name, path, arguments)

    blocks = range(64)
    if long_faults:  # as many as it takes, and some more: for a while it may need more
        task, asked = fresh()
        free = os.statvfs(small_disk).f_bavail
        assert children.ask(task, asked).code == 0
        blocks = range(max(free - os.statvfs(small_disk).f_bavail, 0) + 16)
    for left in blocks if long_faults else [Random(name).choice(blocks)]:
        task, asked = fresh()
        filler = _leave(small_disk, left)
        reply = children.ask(task, asked)
        filler.unlink()
        _check(path, _judge(reply, _FULL, tally), states, tally)
        tally["small disks"] += 1
    assert_whole(path)


def test_an_index_on_a_disk_that_fills(small_disk, tmp_path, children):
    rich = rich_archive(tmp_path)
    path = shutil.copytree(rich, small_disk / "archive")
    shutil.rmtree(path / "index")
    asked = {"archive": str(path), "command": ["archive", "index", str(path)]}
    free = os.statvfs(small_disk).f_bavail
    assert children.ask("command", asked).code == 0
    needs = free - os.statvfs(small_disk).f_bavail
    for share in (0.2, 0.4, 0.6, 0.8, 0.95):
        shutil.rmtree(path / "index")
        filler = _leave(small_disk, int(needs * share))
        reply = children.ask("command", asked)
        filler.unlink()
        assert not _judge(reply, _FULL, Counter())
        assert_whole(path)
