"""Write one change under a temporary name; give it its own name when it is published."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.archive.change import CHANGES, ChangeArray, ChangeHead, Event
from patchknn.archive.checksums import array_checksum
from patchknn.archive.deleting import remove_any
from patchknn.archive.manifest import RELABEL, REMOVE, ChangeEntry
from patchknn.archive.manifests import now
from patchknn.archive.sealed import sealed, sealed_text
from patchknn.archive.strings import pack_strings
from patchknn.files import errors_named, fsync_directory, fsync_file

_ALIGNMENT = 64
Int64 = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]


class WrittenChange(NamedTuple):
    """A whole change on disk that no manifest names yet."""

    folder: Path
    entry: ChangeEntry

    def rename(self) -> None:
        """Give it its own name; nothing happens where it has it already.

        Raises FileNotFoundError where it is under neither: a snapshot must not name what is gone.
        """
        for name in self._names:
            temporary = self.folder / f".tmp-{name}"
            if temporary.exists() or not (self.folder / name).exists():
                temporary.rename(self.folder / name)

    def remove(self) -> None:
        """Delete it under either name."""
        for name in self._names:
            for file in (self.folder / name, self.folder / f".tmp-{name}"):
                remove_any(file)

    @property
    def _names(self) -> tuple[str, str]:
        return f"{self.entry.uuid}.bin", f"{self.entry.uuid}.json"


def write_removal(
    path: Path,
    rows: Mapping[str, Int64],
    dead: Mapping[str, npt.NDArray[np.integer[Any]]],
    *,
    run_id: str | None,
) -> WrittenChange:
    """Rows (m,) that are gone, ascending, by shard; ``dead``: sources left without any."""
    shards = list(rows)
    none = np.zeros(0, np.int32)
    return _write(
        path,
        REMOVE,
        shards,
        [rows[uuid] for uuid in shards],
        {
            "dead_first": _bounds([dead.get(uuid, none) for uuid in shards]),
            "dead": _joined([dead.get(uuid, none) for uuid in shards], "<i4"),
        },
        run_id=run_id,
    )


def write_relabelling(
    path: Path,
    rows: Mapping[str, Int64],
    labels: Mapping[str, Sequence[str | None]],
    *,
    run_id: str | None,
    events: Sequence[Event] | None = None,
    rename: tuple[str, str] | None = None,
    time: str | None = None,
) -> WrittenChange:
    """New labels of rows (m,), ascending, by shard.

    ``events`` are in the order of the rows, and told by ``log --labels``; ``rename`` stands for
    all of them where a class was renamed; ``time`` as in a manifest, now by default.
    """
    shards = list(rows)
    given = [label for uuid in shards for label in labels[uuid]]
    told = list(events or ())
    words = [label for label in (*given, *(event.old for event in told)) if label is not None]
    classes = tuple(dict.fromkeys(words))
    names = tuple(dict.fromkeys(event.by for event in told if event.by is not None))
    reasons = tuple(dict.fromkeys(event.reason for event in told if event.reason is not None))
    arrays: Arrays = {"label": _numbers(given, classes)}
    if events is not None:
        arrays["id_bytes"], arrays["id_offsets"] = pack_strings(event.id for event in told)
        arrays["old"] = _numbers([event.old for event in told], classes)
        arrays["by"] = _numbers([event.by for event in told], names)
        arrays["reason"] = _numbers([event.reason for event in told], reasons)
    return _write(
        path,
        RELABEL,
        shards,
        [rows[uuid] for uuid in shards],
        arrays,
        run_id=run_id,
        words=(classes, names, reasons),
        rename=rename,
        time=time,
    )


def _write(
    path: Path,
    kind: str,
    shards: Sequence[str],
    rows: Sequence[Int64],
    arrays: Arrays,
    *,
    run_id: str | None,
    words: tuple[tuple[str, ...], ...] = ((), (), ()),
    rename: tuple[str, str] | None = None,
    time: str | None = None,
) -> WrittenChange:
    uuid = secrets.token_hex(16)
    folder = path / CHANGES
    temporary, temporary_json = folder / f".tmp-{uuid}.bin", folder / f".tmp-{uuid}.json"
    every: Arrays = {
        "shard": np.frombuffer(b"".join(map(bytes.fromhex, shards)), np.uint8).reshape(-1, 16),
        "first": _bounds(rows),
        "row": _joined(rows, "<u4"),
        **arrays,
    }
    classes, names, reasons = words
    try:
        with errors_named(path, folder):
            folder.mkdir(exist_ok=True)  # an archive of an earlier version has none
            places, size = _write_arrays(temporary, every)
            head = ChangeHead(
                uuid=uuid,
                kind=kind,
                rows=sum(map(len, rows)),
                time=time or now(),
                run_id=run_id,
                classes=classes,
                names=names,
                reasons=reasons,
                rename=rename,
                size=size,
                arrays=places,
            )
            content = json.loads(json.dumps(head.as_json()))
            temporary_json.write_bytes(sealed_text(content))
            fsync_file(temporary_json)
            fsync_directory(folder)
    except BaseException:
        remove_any(temporary)
        remove_any(temporary_json)
        raise
    entry = ChangeEntry(uuid, kind, head.rows, sealed(content)["checksum"])
    return WrittenChange(folder, entry)


def _write_arrays(file: Path, arrays: Arrays) -> tuple[dict[str, ChangeArray], int]:
    places = {}
    with file.open("xb") as stream:
        for name, values in arrays.items():
            stream.write(bytes(-stream.tell() % _ALIGNMENT))
            data = np.ascontiguousarray(values)
            dtype = data.dtype.newbyteorder("<").str
            places[name] = ChangeArray(
                stream.tell(), dtype, tuple(data.shape), array_checksum(data)
            )
            stream.write(data.reshape(-1).view(np.uint8).data)
        size = stream.tell()
    fsync_file(file)
    return places, size


def _numbers(words: Sequence[str | None], table: Sequence[str]) -> npt.NDArray[np.int32]:
    numbers = {word: number for number, word in enumerate(table)}
    return np.array([-1 if word is None else numbers[word] for word in words], "<i4")


def _bounds(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *map(len, parts)]).astype("<i8")


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
