"""Archives as a hostile author makes them: whatever is edited, every checksum is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from patchknn.archive.index.layout import SHARD_LINE
from patchknn.archive.index.names import segments_folder
from patchknn.archive.manifests import manifest_file, manifest_numbers
from patchknn.archive.sealed import sealed, sealed_text

Json = dict[str, Any]
Edit = Callable[[Json], object]


class Forge:
    """Edits files of the archive at ``path``, and what vouches for them up to the manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def newest(self) -> Path:
        """The newest manifest."""
        return manifest_file(self.path, manifest_numbers(self.path)[-1])

    def manifest(self, edit: Edit, *, text: Callable[[bytes], bytes] = bytes) -> None:
        """Edit the newest manifest; ``text`` changes what is written of it."""
        _edit(self.newest, edit, text)

    def manifest_numbered(self, number: str, **entries: Any) -> None:
        """A copy of the newest manifest under another name."""
        value = {**json.loads(self.newest.read_bytes()), "number": int(number), **entries}
        (self.newest.parent / f"{number}.json").write_bytes(sealed_text(value))

    def shard(self, edit: Edit, *, text: Callable[[bytes], bytes] = bytes, at: int = 0) -> None:
        """Edit the JSON of a shard of the newest snapshot; the manifest names what it became."""
        uuid = json.loads(self.newest.read_bytes())["shards"]["uuid"][at]
        value = _edit(self.path / "shards" / f"{uuid}.json", edit, text)

        def named(manifest: Json) -> None:
            shards = manifest["shards"]
            shards["checksum"][at] = sealed(value)["checksum"]
            for name, count in (("rows", "rows"), ("sources", "new_sources")):
                if count in value:
                    shards[name][at] = value[count]
            manifest["rows"] = _live(manifest)

        self.manifest(named)

    def change(self, edit: Edit, *, kind: str = "relabel", whole: bool = False) -> None:
        """Edit the JSON of a change of the newest snapshot."""
        entries = json.loads(self.newest.read_bytes())["changes"]
        (place, *_) = [n for n, entry in enumerate(entries) if entry["kind"] == kind]
        value = _edit(self.path / "changes" / f"{entries[place]['uuid']}.json", edit, bytes)

        def named(manifest: Json) -> None:
            manifest["changes"][place]["checksum"] = sealed(value)["checksum"]
            if whole:
                manifest["changes"][place]["rows"] = value["rows"]

        self.manifest(named)

    def change_array(self, name: str, values: Callable[[Any], Any], *, kind: str) -> None:
        """Edit an array of a change in its ``.bin``."""

        def edit(head: Json) -> None:
            place = head["arrays"][name]
            file = self.path / "changes" / f"{head['uuid']}.bin"
            data = bytearray(file.read_bytes())
            old = np.frombuffer(bytes(data), place["dtype"], _size(place), place["offset"])
            new = np.asarray(values(old.copy().reshape(place["shape"])), place["dtype"]).tobytes()
            data[place["offset"] : place["offset"] + len(new)] = new
            file.write_bytes(data)
            place["checksum"] = hashlib.sha256(new).hexdigest()

        self.change(edit, kind=kind)

    def settings(self, edit: Edit) -> None:
        """Edit ``archive.json``."""
        _edit(self.path / "archive.json", edit, bytes)

    def segment(self, edit: Edit) -> Path:
        """Edit ``segment.json`` of the segment that serves the newest snapshot."""
        folder = self.segment_folder
        _edit(folder / "segment.json", edit, bytes)
        return folder

    @property
    def segment_folder(self) -> Path:
        """The segment that serves the newest snapshot."""
        from patchknn.archive.snapshot import open_archive

        segments = open_archive(self.path).cover.segments
        assert segments, segments_folder(self.path)
        return segments[0].folder

    def segment_array(self, name: str, values: Callable[[Any], Any]) -> None:
        """Edit an array of that segment."""
        folder = self.segment_folder

        def edit(head: Json) -> None:
            record = head["arrays"][name]
            file = folder / f"{name}.bin"
            old = np.fromfile(file, record["dtype"]).reshape(record["shape"])
            new = np.asarray(values(old), record["dtype"])
            file.write_bytes(new.tobytes())
            record["checksum"] = hashlib.sha256(new.tobytes()).hexdigest()
            record["shape"] = list(new.shape)

        self.segment(edit)

    def segment_lines(self, edit: Callable[[Any], object]) -> None:
        """Edit what that segment says of its shards."""

        def changed(old: Any) -> Any:
            lines = old.reshape(-1).view(SHARD_LINE).copy()
            edit(lines)
            return lines.view(np.uint8).reshape(len(lines), -1)

        self.segment_array("shards", changed)

    def encoder(self, edit: Edit) -> None:
        """Edit ``encoder.json``; the archive is of what it became."""
        file = self.path / "encoder" / "encoder.json"
        value = json.loads(file.read_bytes())
        edit(value)
        value.pop("fingerprint", None)
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        file.write_text(json.dumps({**value, "fingerprint": fingerprint}))
        self.settings(lambda settings: settings.update(encoder_fingerprint=fingerprint))


def twice(key: str, value: Any) -> Callable[[bytes], bytes]:
    """The text of a JSON object with a key a second time, before its own: the last one counts."""

    def text(data: bytes) -> bytes:
        return data.replace(b"{", f"{{{json.dumps(key)}: {json.dumps(value)},".encode(), 1)

    return text


def nested(depth: int) -> Any:
    """Lists within lists, as far as Python's own JSON writes them."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _edit(file: Path, edit: Edit, text: Callable[[bytes], bytes]) -> Json:
    value: Json = json.loads(file.read_bytes())
    edit(value)
    value.pop("checksum", None)
    data = sealed_text(value)
    file.write_bytes(text(data))
    return json.loads(data)


def _live(manifest: Json) -> Any:
    try:
        removed = sum(e["rows"] for e in manifest.get("changes", ()) if e["kind"] == "remove")
        return sum(manifest["shards"]["rows"]) - removed
    except TypeError:
        return manifest["rows"]


def _size(place: Json) -> int:
    size = 1
    for extent in place["shape"]:
        size *= extent
    return size
