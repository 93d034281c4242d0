"""Writers of every kind and readers, each in a process of its own, at one archive for a while."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import embedding
import numpy as np
from small_archives import Labels, add, build_rows, bundle_of

from patchknn.archive.choice import Choice
from patchknn.archive.compact import compact
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.merge import Other, merge_archives
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli.main import run as run_command
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

TILES = 3
BATCH = 1 + TILES  # rows of a batch: an image and a slide
_BITS = 16
_AT_LEAST = 4  # times that each does its work, however slow the machine
_BREATH = 0.01  # between two: some have so little to do that they would take the cores for it

Result = dict[str, Any]


def batch_of(identity: str) -> str:
    """What was published together: the prefix of a merge, or the name before its first point."""
    site, separator, _ = identity.partition("/")
    return site if separator else identity.partition(".")[0]


def ids_of(batch: str) -> list[str]:
    """The patches of a batch that ``_add`` published."""
    return [f"{batch}.png", *(f"{batch}.svs@{224 * tile}_448" for tile in range(TILES))]


def _add(path: Path, batch: str, number: int) -> None:
    """Publish a batch, in two shards, under one label."""
    bundle = bundle_of(path)
    rows = build_rows(
        bundle, seed=number, images=[f"{batch}.png"], slides=[f"{batch}.svs"], tiles=TILES
    )
    rows.labels = rows.labels * 0
    assert add(path, rows, ("zarr", "hdf5")[number % 2], shard_bytes=60) is not None


def _adder(path: Path, _: Path, name: str, number: int, result: Result) -> None:
    batch = f"{name}-{number}"
    _add(path, batch, number)
    result["published"] += 1
    result["rows"].update(dict.fromkeys(ids_of(batch), "A"))


def _embed(path: Path, parts: Sequence[embedding.Part], result: Result) -> Mapping[str, int]:
    """Run the command; its counts."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run_command(embedding.command(path, [part.argument for part in parts]))
    assert code == 0, f"embed ended with {code}: {printed.getvalue()}"
    for part in parts:
        result["rows"].update(part.rows)
    return embedding.summary_of(printed.getvalue())


def _embedder(path: Path, _: Path, name: str, number: int, result: Result) -> None:
    """New images and a new slide, which are published at once."""
    batch = f"{name}-{number}"
    folder = path.parent / "sources" / batch
    image = embedding.image_list(folder / "images", {f"{batch}.png": "A"}, number)
    slide = embedding.listed_slide(folder / "slide", f"{batch}.svs", ["A", None, "B"], number)
    counts = _embed(path, [image, slide], result)
    assert (counts["rows"], counts["sources"], counts["held"]) == (BATCH, 2, 0), counts
    result["published"] += 1


def _sharer(path: Path, _: Path, name: str, number: int, result: Result) -> None:
    """Images that all sharers embed; every third time the others' come from other places."""
    batch = f"shared-{number}"
    folder = path.parent / "sources" / batch / ("" if number % 3 else name)
    names: Labels = {f"{batch}.{image}.png": "A" for image in range(BATCH)}
    counts = _embed(path, [embedding.image_list(folder, names, number)], result)
    assert counts["rows"] in {0, BATCH}, counts
    result["published"] += counts["rows"] > 0
    result["left to others"] += counts["rows"] == 0
    result["held by others"] += counts["held"] > 0


def _remover(path: Path, other: Path, name: str, number: int, result: Result) -> None:
    _adder(path, other, name, number, result)
    if number % 3:
        ids = ids_of(f"{name}-{number - 1}")
        report = remove_rows(path, Choice(ids=ids))
        assert (report.rows, report.sources, report.missing) == (BATCH, 2, ())
        result["published"] += 1
        for identity in ids:
            del result["rows"][identity]


def _relabeller(path: Path, other: Path, name: str, number: int, result: Result) -> None:
    if not number:
        _adder(path, other, name, number, result)
    label = f"L{number}"
    ids = ids_of(f"{name}-0")
    report = relabel_patches(path, {identity: Correction(label, name) for identity in ids})
    assert (report.rows, report.missing) == (BATCH, ())
    result["published"] += 1
    result["rows"].update(dict.fromkeys(ids, label))


def _compactor(path: Path, _: Path, __: str, ___: int, result: Result) -> None:
    report = compact(path)
    result["published"] += report.number is not None
    update_index(path)


def _merger(path: Path, other: Path, name: str, number: int, result: Result) -> None:
    site = f"{name}-{number}"
    report = merge_archives(path, [Other(other, site)])
    taken = {f"{site}/{row.id}": row.label for row in list_rows(open_archive(other))}
    assert (report.rows, report.duplicates, report.conflicts) == (len(taken), 0, ())
    result["published"] += 1
    result["rows"].update(taken)


WRITERS: dict[str, Callable[[Path, Path, str, int, Result], None]] = {
    "adder": _adder,
    "embedder": _embedder,
    "sharer": _sharer,
    "remover": _remover,
    "relabeller": _relabeller,
    "compactor": _compactor,
    "merger": _merger,
}


def _write(path: Path, other: Path, kind: str, name: str, end: float) -> Result:
    result: Result = {"kind": kind, "name": name, "done": 0, "published": 0, "rows": {}}
    result |= {"left to others": 0, "held by others": 0}
    while time.monotonic() < end or result["done"] < _AT_LEAST:
        WRITERS[kind](path, other, name, result["done"], result)
        result["done"] += 1
        time.sleep(_BREATH)
    return result


def _read(path: Path, other: Path, end: float) -> Result:
    """Look at snapshot after snapshot; whatever is not whole raises."""
    merged = len(open_archive(other))
    seen: dict[int, int] = {}
    looks, held = 0, None
    while time.monotonic() < end or looks < _AT_LEAST:
        time.sleep(_BREATH)
        snapshot = open_archive(path)
        assert snapshot.number >= max(seen, default=0), "an acknowledged snapshot was lost"
        _check(snapshot, merged)
        seen[snapshot.number] = len(snapshot)
        looks += 1
        if held is None or looks % 5 == 0:
            if held is not None:  # one that was opened a while ago is what it was
                assert _listed(held[0]) == held[1]
            held = (snapshot, _listed(snapshot))
    return {"kind": "reader", "looks": looks, "snapshots": len(seen), "rows": {}, "published": 0}


def _listed(snapshot: Snapshot) -> list[tuple[str, str | None]]:
    return [(row.id, row.label) for row in list_rows(snapshot)]


def _check(snapshot: Snapshot, merged: int) -> None:
    rows = _listed(snapshot)
    ids = [identity for identity, _ in rows]
    assert len(ids) == len(snapshot), (len(ids), len(snapshot))
    assert len(set(ids)) == len(ids), [i for i, n in Counter(ids).items() if n > 1]
    for batch, count in Counter(map(batch_of, ids)).items():
        whole = merged if batch.startswith("merger") else BATCH
        assert count == whole, f"{count} of {whole} rows of {batch} in snapshot {snapshot.number}"
    labels: dict[str, set[str | None]] = {}
    for identity, label in rows:
        if identity.startswith("relabeller"):
            labels.setdefault(batch_of(identity), set()).add(label)
    assert all(len(some) == 1 for some in labels.values()), labels
    assert snapshot.n_sources == len({identity.partition("@")[0] for identity in ids})
    if ids:
        assert snapshot.locate(ids[0]) is not None
        found = Searcher(snapshot, SearchSettings(k=3, radius=_BITS)).search(
            Query("q", np.ones(snapshot.settings.feature_dim))
        )
        assert found.ball == len(ids), (found.ball, len(ids))


def _started(work: Callable[[], Result]) -> tuple[int, int]:
    """A process of its own: its id, and where its result is read."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        return child, read_end
    code = 1
    try:
        try:
            result = work()
            code = 0
        except BaseException:  # noqa: BLE001  the test says what it was
            result = {"error": traceback.format_exc()}
        with os.fdopen(write_end, "w") as pipe:
            json.dump(result, pipe)
    finally:
        os._exit(code)


def _results(children: list[tuple[int, int]]) -> Iterator[Result]:
    for child, read_end in children:
        with os.fdopen(read_end) as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        yield json.loads(text) if text else {"error": f"ended with status {status}"}


def at_once(
    path: Path, other: Path, seconds: float, readers: int, writers: Sequence[str]
) -> Iterator[Result]:
    """Start all of them, each writer being one of ``WRITERS``; what each has done."""
    end = time.monotonic() + seconds
    children = [_started(lambda: _read(path, other, end)) for _ in range(readers)]
    for number, kind in enumerate(writers):
        name = f"{kind}{number}"
        children.append(_started(lambda k=kind, n=name: _write(path, other, k, n, end)))
    yield from _results(children)
