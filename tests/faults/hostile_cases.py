"""What a hostile author writes into an archive: a name, and what is done with a ``Forge``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forge import Forge, nested, twice

Case = Callable[[Forge], object]
_GIANT = 1 << 62
_STRANGE: dict[str, Any] = {
    "a number": 5,
    "a list": [[]],
    "an object": {"a": {}},
    "true": True,
    "nothing": None,
    "negative": -1,
    "a fraction": 1.5,
    "giant": 10**400,
    "a lone surrogate": "\ud800",
    "control characters": "\x1b]0;x\x07\x9b31m\r\n",
    "a path": "../../../../../../etc/passwd",
}


def _extra_array(**place: Any) -> Case:
    whole = {"file": "x", "offset": 0, "dtype": "|u1", "shape": [1], "checksum": "0" * 64, **place}
    return lambda forge: forge.shard(lambda v: v["arrays"].update(extra=whole))


def _shard_cases() -> Mapping[str, Case]:
    def file_named(name: str) -> Case:
        return lambda f: f.shard(lambda v: v["files"][0].update(file=name))

    def array(name: str, **place: Any) -> Case:
        return lambda f: f.shard(lambda v: v["arrays"][name].update(place))

    def in_container(name: str) -> Case:
        def edit(value: Any) -> None:
            value["files"][0]["file"] = value["uuid"] + ".zarr/" + name

        return lambda f: f.shard(edit)

    def more_file(name: str) -> Case:
        def edit(value: Any) -> None:
            record = value["files"][0]
            value["files"].append({**record, "file": f"{value['uuid']}.zarr/{name}"})

        return lambda f: f.shard(edit)

    cases: dict[str, Case] = {
        "a file by its absolute path": file_named("/etc/passwd"),
        "a file above": file_named("../archive.json"),
        "a file above, through the container": in_container("../../archive.json"),
        "a file with a zero byte": in_container("a\0b"),
        "a file with a lone surrogate": in_container("\ud800"),
        "a file with a long name": in_container("a" * 5000),
        "one more file with a lone surrogate": more_file("\ud800"),
        "one more file with a long name": more_file("a" * 5000),
        "one more file above": more_file("../x"),
        "an array by its absolute path": array("codes", file="/etc/passwd"),
        "an array of a giant shape": array("features", shape=[_GIANT, 128]),
        "an array of giant text": array("source_name_bytes", shape=[_GIANT]),
        "an array at a giant place": array("codes", offset=_GIANT),
        "an array at true": array("codes", offset=True),
        "an array of shape true": array("source_name_bytes", shape=[True]),
        "an array of objects": array("codes", dtype="|O"),
        "one more array in another file": _extra_array(file="/etc/passwd"),
        "one more array without end": _extra_array(
            file="../../../../../../../dev/zero", shape=[_GIANT]
        ),
        "one more array of objects": _extra_array(dtype="|O"),
        "one more array at a giant place": _extra_array(file="/etc/passwd", offset=1 << 70),
        "a billion billion rows": lambda f: f.shard(lambda v: v.update(rows=_GIANT)),
        "no rows at all": lambda f: f.shard(lambda v: v.update(rows=0)),
        "a key twice": lambda f: f.shard(lambda v: None, text=twice("rows", 10**9)),
        "deep JSON": lambda f: f.shard(lambda v: v.update(run_id=nested(400))),
        "JSON too deep to read": lambda f: f.shard(
            lambda v: None, text=lambda _: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        ),
        "more JSON than there may be": _too_large("shards"),
        "a giant number in JSON": lambda f: f.shard(
            lambda v: None,
            text=lambda d: d.replace(b'"sources"', b'"x": 1' + b"0" * 9000 + b',"sources"'),
        ),
    }
    for key in (
        "rows",
        "sources",
        "new_sources",
        "container",
        "classes",
        "run_id",
        "files",
        "uuid",
    ):
        for how, value in _STRANGE.items():
            cases[f"{key} is {how}"] = _setting(Forge.shard, key, value)
    return cases


def _setting(edit: Any, key: str, value: Any) -> Case:
    return lambda forge: edit(forge, lambda content: content.update({key: value}))


def _too_large(folder: str) -> Case:
    def case(forge: Forge) -> None:
        file = (
            forge.newest
            if folder == "manifests"
            else sorted(forge.path.glob(f"{folder}/*.json"))[0]
        )
        os.truncate(file, 65 << 20)

    return case


def _manifest_cases() -> Mapping[str, Case]:
    def entries(key: str, **entry: Any) -> Case:
        return lambda f: f.manifest(lambda v: v[key][0].update(entry))

    def column(key: str, value: Any) -> Case:
        return lambda f: f.manifest(lambda v: v["shards"][key].__setitem__(0, value))

    cases: dict[str, Case] = {
        "ten thousand shards": lambda f: f.manifest(
            lambda v: v.update(
                shards={
                    **{name: values[:1] * 10_000 for name, values in v["shards"].items()},
                    "uuid": [f"{n:032x}" for n in range(10_000)],
                    "rows": [10**9] * 10_000,
                },
                rows=10**13,
                changes=[],
            )
        ),
        "a billion shards in words": lambda f: f.manifest(lambda v: v.update(shards=10**9)),
        "an entry more": entries("changes", more=1),
        "a shard twice": lambda f: f.manifest(
            lambda v: v.update(shards={k: [some[0], *some] for k, some in v["shards"].items()})
        ),
        "a column too short": lambda f: f.manifest(lambda v: v["shards"]["rows"].pop()),
        "a column that is text": lambda f: f.manifest(
            lambda v: v["shards"].update(uuid="".join(v["shards"]["uuid"]))
        ),
        "no column of checksums": lambda f: f.manifest(lambda v: v["shards"].pop("checksum")),
        "shards as objects": lambda f: f.manifest(
            lambda v: v.update(shards=[dict.fromkeys(v["shards"], 1)])
        ),
        "a key twice": lambda f: f.manifest(lambda v: None, text=twice("rows", -5)),
        "too deep": lambda f: f.manifest(
            lambda v: None, text=lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        ),
        "more JSON than there may be": _too_large("manifests"),
        "a record of another kind": lambda f: f.manifest(
            lambda v: v.update(records=[{"sha256": "0" * 64, "key": [], "name": "x", "rows": 1}])
        ),
        "records with a path": lambda f: f.manifest(
            lambda v: v.update(
                records=[{"sha256": "../" * 20 + "etc", "key": "slide", "name": "x", "rows": 1}]
            )
        ),
        "records that are not there": lambda f: f.manifest(
            lambda v: v.update(
                records=[{"sha256": "0" * 64, "key": "slide", "name": "\x1b[31m", "rows": 1}]
            )
        ),
        "number 99999999": lambda f: f.manifest_numbered("99999999"),
        "number 999999999999": lambda f: f.manifest_numbered("999999999999"),
        "a number in other digits": lambda f: f.manifest_numbered("٠٠٠٠٠٠٩٩"),
        "a number with more zeros": lambda f: f.manifest_numbered("000000099"),
        "another manifest of one number": lambda f: f.manifest_numbered("000000009"),
    }
    keys = (
        *("number", "archive_id", "nonce", "parent", "time", "action", "run_id", "rows", "sources"),
        *("rows_added", "sources_added", "classes", "shards", "changes", "rows_removed"),
        *("label_history", "records", "purged", "totals", "format_version"),
    )
    for key in keys:
        for how, value in _STRANGE.items():
            cases[f"{key} is {how}"] = _setting(Forge.manifest, key, value)
    for key in ("uuid", "rows", "sources", "checksum"):
        for how, value in _STRANGE.items():
            cases[f"{key} of a shard is {how}"] = column(key, value)
    for key in ("uuid", "kind", "rows", "checksum"):
        for how, value in _STRANGE.items():
            cases[f"{key} of a change is {how}"] = entries("changes", **{key: value})
    return cases


def _change_cases() -> Mapping[str, Case]:
    place = {"offset": 0, "dtype": "|u1", "shape": [1], "checksum": "0" * 64}

    def more(**other: Any) -> Case:
        return lambda f: f.change(lambda v: v["arrays"].update(extra={**place, **other}))

    def values(name: str, value: int, kind: str) -> Case:
        def changed(old: Any) -> Any:
            old[...] = value
            return old

        return lambda f: f.change_array(name, changed, kind=kind)

    cases: dict[str, Case] = {
        "one more array of objects": more(dtype="|O"),
        "one more array of garbage": more(dtype="garbage"),
        "one more array at a giant place": more(offset=1 << 47),
        "one more array of a giant shape": more(shape=[1 << 47, 1 << 47]),
        "an array of no dimension": lambda f: f.change(
            lambda v: v["arrays"]["row"].update(shape=[])
        ),
        "rename of nothing": lambda f: f.change(lambda v: v.update(rename=[])),
        "rename of one": lambda f: f.change(lambda v: v.update(rename=["a"])),
        "no arrays": lambda f: f.change(lambda v: v.update(arrays={})),
    }
    for kind, names in {
        "relabel": ("first", "row", "label", "shard", "id_offsets", "old", "by", "reason"),
        "remove": ("first", "row", "shard", "dead_first", "dead"),
    }.items():
        for name in names:
            for value in (-1, 0, (1 << 31) - 1):
                if value < 0 and name in {"row", "shard"}:
                    value = 255  # noqa: PLW2901  they have no sign
                cases[f"{name} of a {kind} are all {value}"] = values(
                    name, value & 255 if name == "shard" else value, kind
                )
    for key in ("uuid", "kind", "rows", "time", "run_id", "classes", "names", "reasons", "size"):
        for how, value in _STRANGE.items():
            cases[f"{key} is {how}"] = _setting(Forge.change, key, value)
    return cases


def _segment_cases() -> Mapping[str, Case]:
    def lines(**fields: int) -> Case:
        def edit(every: Any) -> None:
            for name, value in fields.items():
                every[name] = value

        return lambda f: f.segment_lines(edit)

    def file_sets(name: str) -> Case:
        return lambda f: f.segment(
            lambda v: v.update(file_sets=[[name] * len(names) for names in v["file_sets"]])
        )

    cases: dict[str, Case] = {
        "files by an absolute path": file_sets("/etc/passwd"),
        "files above": file_sets("/../../archive.json"),
        "files with a zero byte": file_sets("a\0b"),
        "files with a lone surrogate": file_sets("\ud800"),
        "features beyond the end": lines(features_offset=1 << 40),
        "features at a negative place": lines(features_offset=-8),
        "features in no file": lines(features_file=99),
        "features in a negative file": lines(features_file=-1),
        "a negative file set": lines(file_set=-1),
        "sizes from a negative place": lines(first_size=-(1 << 40)),
        "sizes from a giant place": lines(first_size=1 << 40),
        "giant sources": lines(sources=1 << 47),
        "negative sources": lines(sources=-1),
        "sizes that are negative": lambda f: f.segment_array(
            "shard_sizes", lambda old: old * 0 - 1
        ),
        "parts of 32 bits": lambda f: f.segment(lambda v: v.update(parts=[[0, 32]])),
        "parts beyond the bits": lambda f: f.segment(lambda v: v.update(parts=[[31, 8]])),
        "a thousand parts": lambda f: f.segment(lambda v: v.update(parts=v["parts"] * 500)),
        "no sketch scale": lambda f: f.segment(lambda v: v.update(sketch={})),
        "a giant sketch scale": lambda f: f.segment(
            lambda v: v.update(sketch={"scale": 10**400, "slack": 0})
        ),
        "an array of a giant shape": lambda f: f.segment(
            lambda v: v["arrays"]["codes"].update(shape=[1 << 47, 1 << 47])
        ),
        "an array named by a path": lambda f: f.segment(
            lambda v: v["arrays"].update({"../x": v["arrays"]["codes"]})
        ),
    }
    for key in (
        "bits",
        "rows",
        "sources",
        "codes",
        "parts",
        "sketch",
        "file_sets",
        "arrays",
        "archive_id",
    ):
        for how, value in _STRANGE.items():
            cases[f"{key} is {how}"] = _setting(Forge.segment, key, value)
    for name in ("bounds", "rows", "id_bounds", "id_entries", "source_name_entries", "part1_order"):
        for value in (0, (1 << 32) - 1):
            cases[f"{name} are all {value}"] = _filled(name, value)
    return cases


def _filled(name: str, value: int) -> Case:
    def changed(old: Any) -> Any:
        old = old.copy()
        old[1:-1] = value  # its ends are looked at when it is opened
        return old

    return lambda f: f.segment_array(name, changed)


def _encoder_cases() -> Mapping[str, Case]:
    cases: dict[str, Case] = {
        "heads of a giant header": lambda f: (f.path / "encoder" / "heads.safetensors").write_bytes(
            (1 << 62).to_bytes(8, "little") + b"{}"
        ),
        "deep JSON": lambda f: f.encoder(lambda v: v.update(training={"a": nested(400)})),
        "its file is a link": lambda f: _linked(f.path / "encoder" / "encoder.json", f.path.parent),
        "its folder is a link": lambda f: _linked(f.path / "encoder", f.path.parent),
        "a loop of links": lambda f: _loop(f.path / "encoder" / "encoder.json"),
    }
    keys = (
        *("format_version", "feature_dim", "bits", "class_names", "tasks", "mean", "mpp", "input"),
        *("input_size", "crop", "projection", "hash_method", "backbone", "digests", "training"),
    )
    for key in keys:
        for how, value in _STRANGE.items():
            cases[f"{key} is {how}"] = _setting(Forge.encoder, key, value)
    return cases


def _settings_cases() -> Mapping[str, Case]:
    keys = (
        *("archive_id", "encoder_fingerprint", "bits", "feature_dim", "feature_dtype", "patch_px"),
        *("mpp", "precision", "orientations", "format_version", "format"),
    )
    cases = {
        f"{key} is {how}": _setting(Forge.settings, key, value)
        for key in keys
        for how, value in _STRANGE.items()
    }
    cases["a feature of 16 million numbers"] = _setting(
        Forge.settings, "feature_dim", (1 << 24) - 1
    )
    cases["1024 bits"] = _setting(Forge.settings, "bits", 1024)
    return cases


def _run_cases() -> Mapping[str, Case]:
    def record(text: str) -> Case:
        return lambda f: (f.path / "runs" / "rename-1.json").write_text(text)

    return {
        "argv is a number": record('{"argv": 5}'),
        "argv of everything": record('{"argv": [1, [2], {"a": null}, "\\u001b[31m", "\\ud800"]}'),
        "no object": record("[1]"),
        "too deep": record("[" * 100_000),
        "a record behind a link without end": lambda f: _link(
            f.path / "runs" / "rename-1.json", "/dev/zero"
        ),
    }


def _link_cases() -> Mapping[str, Case]:
    def shard_json(forge: Forge) -> Path:
        return sorted((forge.path / "shards").glob("*.json"))[0]

    return {
        "shards": lambda f: _linked(f.path / "shards", f.path.parent),
        "one shard": lambda f: _linked(next((f.path / "shards").glob("*.zarr")), f.path.parent),
        "one shard's JSON": lambda f: _linked(shard_json(f), f.path.parent),
        "a shard's JSON without end": lambda f: _link(shard_json(f), "/dev/zero"),
        "a manifest without end": lambda f: _link(f.newest, "/dev/zero"),
        "archive.json without end": lambda f: _link(f.path / "archive.json", "/dev/zero"),
        "a manifest to itself": lambda f: _loop(f.newest),
        "changes": lambda f: _linked(f.path / "changes", f.path.parent),
        "one change": lambda f: _linked(next((f.path / "changes").glob("*.bin")), f.path.parent),
        "the index": lambda f: _linked(f.path / "index", f.path.parent),
        "a segment's array": lambda f: _linked(f.segment_folder / "codes.bin", f.path.parent),
        "a segment's array without end": lambda f: _link(
            f.segment_folder / "codes.bin", "/dev/zero"
        ),
        "a segment's JSON without end": lambda f: _link(
            f.segment_folder / "segment.json", "/dev/zero"
        ),
        "manifests": lambda f: _linked(f.path / "manifests", f.path.parent),
        "runs to nowhere": lambda f: _link(f.path / "runs", "/no/such/folder"),
    }


def _linked(file: Path, outside: Path) -> None:
    """What was there is elsewhere now, behind a link."""
    place = outside / f"elsewhere-{file.name}"
    file.rename(place)
    file.symlink_to(place)


def _link(file: Path, target: str) -> None:
    if file.is_dir() and not file.is_symlink():
        file.rename(file.with_name("gone"))
    else:
        file.unlink()
    file.symlink_to(target)


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


GROUPS: Mapping[str, Mapping[str, Case]] = {
    "shard": _shard_cases(),
    "manifest": _manifest_cases(),
    "change": _change_cases(),
    "segment": _segment_cases(),
    "encoder": _encoder_cases(),
    "settings": _settings_cases(),
    "run": _run_cases(),
    "link": _link_cases(),
}
