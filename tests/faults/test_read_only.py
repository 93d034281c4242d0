"""An archive that may not be written to: everything that only reads works, and writes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest

_NOBODY = 65534


def _reading(archive, feature):
    path = str(archive)
    return [
        ["archive", "list", path, "--format", "tsv"],
        ["archive", "info", path],
        ["archive", "log", path],
        ["archive", "log", path, "--labels"],
        ["archive", "verify", path],
        ["query", path, str(feature), "--format", "ndjson"],
        ["query", path, "--id", "xa.png"],
        ["archive", "remove", path, "--id", "xa.png", "--dry-run"],
        ["archive", "relabel", path, "--rename", "A=Q", "--dry-run"],
        ["archive", "compact", path, "--dry-run"],
        ["archive", "gc", path, "--dry-run", "--older-than", "0"],
        ["archive", "rollback", path, "4", "--dry-run"],
    ]


def _changing(archive):
    path = str(archive)
    return [
        ["archive", "remove", path, "--id", "xa.png"],
        ["archive", "relabel", path, "--rename", "A=Q"],
        ["archive", "compact", path],
        ["archive", "rollback", path, "4"],
        ["archive", "index", path, "--rebuild"],
    ]


@pytest.fixture
def place(worn, folder):
    """A copy of the archive and a query, where another user may read them."""
    folder.chmod(0o755)
    shutil.copytree(worn / "archive", folder / "archive")
    np.save(folder / "q.npy", np.ones((2, 12)))
    return folder


def _others(place):
    for file in [place, *place.rglob("*")]:
        file.chmod(0o555 if file.is_dir() else 0o444)


@pytest.fixture
def another_user(place):
    """The same to be asked as a user who may not write: what a child is to become."""
    if os.geteuid():
        _others(place / "archive")
        yield None  # modes bind this user
    else:
        _others(place)
        yield _NOBODY
    for file in [place, *place.rglob("*")]:
        file.chmod(0o755 if file.is_dir() else 0o644)


@pytest.fixture
def read_only(place, tmp_path):
    """The same on a file system that is mounted to be read."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for command in (
        ["mount", "--bind", str(place), str(mounted)],
        ["mount", "-o", "remount,bind,ro", str(mounted)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            subprocess.run(["umount", str(mounted)], capture_output=True)
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def _check(children, place, user=None, warm=None):
    archive, feature = place / "archive", place / "q.npy"
    before = {file: file.lstat().st_mtime_ns for file in [archive, *archive.rglob("*")]}
    commands = [*_reading(archive, feature), *_changing(archive)]
    asked = {"archive": str(archive), "commands": commands, "user": user}
    if user is not None:
        asked["first"] = [*_reading(warm, feature), *_changing(warm)]
    reply = children.ask("commands", asked)
    assert reply.error is None, reply.error
    told = [event for event in reply.told if event[0] == "exit"]
    assert len(told) == len(commands), reply
    reads = len(_reading(archive, feature))
    for (_, number, code, out, err), words in zip(told, commands, strict=True):
        if number < reads:
            assert code == 0, (words, err)
            assert out or words[1] == "verify"
        else:
            assert code == 1, (words, err)
            (sentence,) = err.splitlines()
            assert str(archive) in sentence, (words, err)
            assert "unexpected" not in sentence
    assert {f: f.lstat().st_mtime_ns for f in [archive, *archive.rglob("*")]} == before


def test_a_user_who_may_not_write_can_read(children, another_user, place, tmp_path):
    warm = shutil.copytree(place / "archive", tmp_path / "warm")
    for file in [warm, *warm.rglob("*")]:
        file.chmod(0o755)
    _check(children, place, another_user, warm)


def test_a_file_system_that_is_read_only_can_be_read(children, read_only):
    _check(children, read_only)
