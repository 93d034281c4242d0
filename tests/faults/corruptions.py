"""What may happen to one file of an archive, drawn at random, done, and undone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

Corruption = dict[str, Any]

KINDS = (
    "flip",
    "burst",
    "truncated",
    "empty",
    "grown",
    "deleted",
    "swapped",
    "folder",
    "link to the same",
    "link to another",
    "dead link",
    "edited",
    "of another",
)
_FOLDERS = ("deleted", "swapped", "link to the same", "dead link")


def draw(path: Path, random: Random) -> Corruption:
    """One corruption of one file below an archive, now and then of a folder."""
    every = sorted(p for p in path.rglob("*"))
    files = [p for p in every if p.is_file()]
    # Of zarr shards most of the files are: every kind of file is to be met.
    groups: dict[str, list[Path]] = {}
    for file in files:
        relative = file.relative_to(path)
        groups.setdefault(_group(relative), []).append(file)
    kind = random.choice(KINDS)
    if kind in _FOLDERS and random.random() < 0.15:
        file = random.choice([p for p in every if p.is_dir()])
    else:
        file = random.choice(groups[random.choice(sorted(groups))])
        if kind == "edited" and file.suffix != ".json":
            file = random.choice([p for p in files if p.suffix == ".json"])
    others = [p for p in file.parent.iterdir() if p != file and p.is_dir() == file.is_dir()]
    other = random.choice(sorted(others)) if others else file
    if kind in {"swapped", "of another"} and other == file:
        kind = "deleted"
    return {
        "kind": kind,
        "file": str(file.relative_to(path)),
        "other": str(other.relative_to(path)),
        "seed": random.randrange(1 << 30),
    }


def _group(relative: Path) -> str:
    top = relative.parts[0]
    return f"{top} {relative.suffix}" if top in {"shards", "index", "changes"} else top


@contextmanager
def corrupted(path: Path, corruption: Corruption, aside: Path) -> Iterator[None]:
    """Do it, and undo it on leaving; what it replaces lies in ``aside`` meanwhile."""
    file, other = path / corruption["file"], path / corruption["other"]
    random = Random(corruption["seed"])
    kind = corruption["kind"]
    aside.mkdir(exist_ok=True)
    kept = aside / "kept"
    if kind == "swapped":
        _swap(file, other, aside)
        try:
            yield
        finally:
            _swap(file, other, aside)
        return
    file.rename(kept)
    try:
        _replace(kind, file, kept, other, random)
        yield
    finally:
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        elif file.is_symlink() or file.exists():
            file.unlink()
        kept.rename(file)


def _swap(file: Path, other: Path, aside: Path) -> None:
    middle = aside / "middle"
    file.rename(middle)
    other.rename(file)
    middle.rename(other)


def _replace(kind: str, file: Path, kept: Path, other: Path, random: Random) -> None:
    if kind == "deleted":
        return
    if kind == "folder":
        file.mkdir()
    elif kind == "link to the same":
        file.symlink_to(kept)
    elif kind == "link to another":
        file.symlink_to(other if other != file else "/etc/hostname")
    elif kind == "dead link":
        file.symlink_to("/no/such/file")
    elif kind == "edited":
        value = json.loads(kept.read_bytes())
        file.write_text(json.dumps(edited(value, random), indent=1))
    elif kind == "of another":
        file.write_bytes(other.read_bytes() if other.is_file() else b"")
    else:
        file.write_bytes(_BYTES[kind](bytearray(kept.read_bytes()), random))
        shutil.copystat(kept, file)


def _flip(data: bytearray, random: Random) -> bytes:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _burst(data: bytearray, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    length = min(random.randint(1, 64), len(data) - start)
    data[start : start + length] = random.randbytes(length)
    return bytes(data)


_BYTES: dict[str, Callable[[bytearray, Random], bytes]] = {
    "flip": _flip,
    "burst": _burst,
    "truncated": lambda data, random: bytes(data[: random.randrange(len(data) or 1)]),
    "empty": lambda *_: b"",
    "grown": lambda data, random: bytes(data) + random.randbytes(random.randint(1, 5000)),
}


def edited(value: Any, random: Random) -> Any:
    """The same JSON with one entry changed, dropped or of another type."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    if not places:
        return {"edited": True}
    container, key = random.choice(places)
    old = container[key]
    if random.random() < 0.2 and isinstance(container, dict):
        del container[key]
        return value
    container[key] = random.choice(_others(old))
    return value


def _others(old: Any) -> Sequence[Any]:
    strange = [None, True, -1, 1 << 62, 1.5, "", "../../x", [], {}, [[]], {"a": 1}, "\ud800"]
    if isinstance(old, bool) or old is None:
        return strange
    if isinstance(old, int):
        return [old + 1, old - 1, 2 * old, -old, float(old), str(old), *strange]
    if isinstance(old, str):
        return [old[:-1], old + "0", old[::-1], *strange]
    if isinstance(old, list):
        return [old[::-1], old[1:], old + old, *strange]
    return strange


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in list(entries):
        yield value, key
        if isinstance(entry, dict | list):
            yield from _places(entry)


def remove_stale(aside: Path) -> None:
    """What a child that crashed has left aside."""
    if os.path.lexists(aside):
        shutil.rmtree(aside)
