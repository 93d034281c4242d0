"""What changes an archive, as a table: how to ask for it, how to do it, what it leaves.

Another operation is one more line in ``OPERATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import embedding
from small_archives import Labels, add, build_rows, bundle_of, labels_of_rows, listed

from patchknn.archive.choice import Choice
from patchknn.archive.collect import collect_garbage
from patchknn.archive.compact import compact
from patchknn.archive.index.update import update_index
from patchknn.archive.manifests import manifest_numbers
from patchknn.archive.merge import Other, merge_archives
from patchknn.archive.purge import purge_rows
from patchknn.archive.records_attach import attach_records
from patchknn.archive.relabel import Correction, relabel_patches, rename_class
from patchknn.archive.remove import remove_rows
from patchknn.archive.rollback import roll_back
from patchknn.archive.runs import new_run_id, write_run
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.cli.main import run as run_command

Arguments = dict[str, Any]
KEPT = 6  # snapshots that gc leaves
_THUMBNAILS = ["--thumbnails", "16"]
_BACK = 3  # how far rollback goes: no further than what is kept after a round's other operations


class World:
    """What an archive must hold: of the newest snapshot, and of each earlier one by number."""

    def __init__(self, path: Path, other: Path) -> None:
        self.path = path
        self.other = other  # an archive that is merged into it
        self.other_rows = listed(other)
        self.bundle = bundle_of(path)
        self.batch = 0
        self.purging = False  # what is planned next cannot go back behind a purge
        self.kept = {number: listed(path, number) for number in manifest_numbers(path)}
        self.rows = dict(self.kept[max(self.kept)])

    def settle(self, number: int, rows: Labels) -> None:
        """The newest snapshot is ``number`` and holds these rows."""
        self.rows = dict(rows)
        self.kept[number] = dict(rows)
        purged = open_archive(self.path).manifest.purged
        present = {n for n in manifest_numbers(self.path) if n >= purged}
        self.kept = {n: held for n, held in self.kept.items() if n in present}
        self.purging = False


class Operation(NamedTuple):
    """``plan`` says what is asked for, given what is held (None: it would make no sense).

    ``run`` does it, ``after`` says what is held then; arguments can be written as JSON.
    ``command``: the same as arguments of ``patchknn``, None where they cannot say it. ``partly``:
    what less may be done where a failure is noticed on the way.
    """

    plan: Callable[[World, Labels, Random], Arguments | None]
    run: Callable[[Path, Arguments], object]
    after: Callable[[World, Labels, Arguments], Labels]
    command: Callable[[Path, Arguments], list[str]] | None = None
    partly: Callable[[Arguments], list[Arguments]] = lambda _: []


def _some(rows: Labels, random: Random, most: int) -> list[str]:
    return random.sample(sorted(rows), min(random.randint(1, most), len(rows)))


def _run_id(path: Path, what: str) -> str:
    """A run with its record, which is there before the snapshot that names it."""
    run_id = new_run_id()
    write_run(path, run_id, {"argv": ["patchknn", what], "counts": {}})
    return run_id


def _unchanged(_: World, rows: Labels, __: Arguments) -> Labels:
    return dict(rows)


def _plan_add(world: World, _: Labels, random: Random) -> Arguments:
    world.batch += 1
    tag = f"b{world.batch}-{random.randrange(1 << 30)}"
    return {
        "images": [f"{tag}-{n}.png" for n in range(random.randint(0, 3))],
        "slides": [f"{tag}-{n}.svs" for n in range(random.randint(1, 2))],
        "seed": random.randrange(1 << 30),
        "format": random.choice(["zarr", "hdf5"]),
        "shard_bytes": random.choice([150, 512 << 20]),  # of the smaller one several shards
    }


def _rows_to_add(bundle: Any, arguments: Arguments) -> Any:
    asked = {name: arguments[name] for name in ("images", "slides", "seed")}
    return build_rows(bundle, tiles=3, **asked)


def _run_add(path: Path, arguments: Arguments) -> None:
    rows = _rows_to_add(bundle_of(path), arguments)
    run_id = _run_id(path, "embed")
    add(path, rows, arguments["format"], run_id=run_id, shard_bytes=arguments["shard_bytes"])


def _after_add(world: World, rows: Labels, arguments: Arguments) -> Labels:
    return {**rows, **labels_of_rows(_rows_to_add(world.bundle, arguments))}


def _plan_remove(_: World, rows: Labels, random: Random) -> Arguments | None:
    if not rows:
        return None
    ids = _some(rows, random, 4)
    slides = [_source(ids.pop())] if random.random() < 0.5 else []
    return {"ids": ids, "slides": slides}


def _after_remove(_: World, rows: Labels, arguments: Arguments) -> Labels:
    gone, slides = set(arguments["ids"]), set(arguments["slides"])
    return {i: v for i, v in rows.items() if i not in gone and _source(i) not in slides}


def _plan_relabel(_: World, rows: Labels, random: Random) -> Arguments | None:
    labels = ["A", "B", "C", None]
    chosen = {identity: random.choice(labels) for identity in _some(rows, random, 6)}
    return {"labels": chosen} if chosen else None


def _run_relabel(path: Path, arguments: Arguments) -> None:
    labels = arguments["labels"]
    corrections = {i: Correction(label, "Ann", "seen") for i, label in labels.items()}
    relabel_patches(path, corrections, run_id=_run_id(path, "relabel"))


def _plan_rename(_: World, rows: Labels, random: Random) -> Arguments | None:
    present = sorted({label for label in rows.values() if label is not None})
    if not present:
        return None
    old = random.choice(present)
    return {"old": old, "new": random.choice([n for n in ("A", "B", "C", "D") if n != old])}


def _after_rename(_: World, rows: Labels, arguments: Arguments) -> Labels:
    old, new = arguments["old"], arguments["new"]
    return {i: new if label == old else label for i, label in rows.items()}


def _plan_rollback(world: World, _: Labels, random: Random) -> Arguments | None:
    return None if world.purging else {"number": random.choice(sorted(world.kept)[-_BACK:])}


def _after_rollback(world: World, _: Labels, arguments: Arguments) -> Labels:
    return dict(world.kept[arguments["number"]])


def _plan_merge(world: World, _: Labels, random: Random) -> Arguments:
    prefix = random.choice([None, f"m{random.randrange(1 << 30)}"])
    return {"other": str(world.other), "prefix": prefix}


def _after_merge(world: World, rows: Labels, arguments: Arguments) -> Labels:
    before = f"{arguments['prefix']}/" if arguments["prefix"] else ""
    return {**{before + i: label for i, label in world.other_rows.items()}, **rows}


def _plan_replace(world: World, rows: Labels, random: Random) -> Arguments | None:
    # None of those that are merged again: one name would have two contents.
    others = {_source(identity) for identity in world.other_rows}
    names = sorted({_source(identity) for identity in rows} - others)
    if not names:
        return None
    name = random.choice(names)
    return {"name": name, "content": random.randrange(1, 1 << 30), "seed": random.randrange(99)}


def _rows_instead(bundle: Any, arguments: Arguments) -> Any:
    kind = "images" if arguments["name"].endswith(".png") else "slides"
    names = {"images": [], "slides": [], kind: [arguments["name"]]}
    rows = build_rows(bundle, tiles=2, seed=arguments["seed"], **names)
    other = (source._replace(size=arguments["content"]) for source in rows.sources)
    return rows.with_sources(tuple(other))


def _run_replace(path: Path, arguments: Arguments) -> None:
    rows = _rows_instead(bundle_of(path), arguments)
    with ArchiveWriter(path, run_id=_run_id(path, "embed --replace")) as writer:
        writer.add(rows, replace=True)
        writer.publish()


def _after_replace(world: World, rows: Labels, arguments: Arguments) -> Labels:
    name = arguments["name"]
    kept = {i: label for i, label in rows.items() if _source(i) != name}
    return {**kept, **labels_of_rows(_rows_instead(world.bundle, arguments))}


def _sources(world: World) -> Path:
    """A folder for new images and slides, outside of the archive's."""
    world.batch += 1
    return world.path.parent.parent / "sources" / str(world.batch)


def _plan_embed(world: World, _: Labels, random: Random) -> Arguments:
    folder, seed = _sources(world), random.randrange(1 << 30)
    tag = f"e{world.batch}-{seed}"
    images = {f"{tag}-{n}.png": random.choice("AB") for n in range(random.randint(1, 4))}
    write = random.choice([embedding.image_folder, embedding.image_list])
    slides = [
        embedding.listed_slide(folder / "slide", f"{tag}.svs", ["A", None, "E"], seed),
        embedding.tiled_slide(folder / "tiled", f"{tag}-whole.svs", "B", seed),
    ]
    parts = [write(folder / "images", images, seed), *random.sample(slides, random.randint(0, 2))]
    container, thumbnails = random.choice(["zarr", "hdf5"]), random.choice([[], _THUMBNAILS])
    return _embedded(parts, ["--format", container, *thumbnails])


def _plan_embed_replace(world: World, rows: Labels, random: Random) -> Arguments | None:
    # None of those that are merged again: one name would have two contents.
    others = {_source(identity) for identity in world.other_rows}
    images = sorted({i for i in rows if "@" not in i} - others)
    slides = sorted({_source(i) for i in rows if "@" in i} - others)
    folder, seed = _sources(world), random.randrange(1 << 30)
    parts = []
    if images:
        chosen = random.sample(images, min(random.randint(1, 2), len(images)))
        labels: Labels = dict.fromkeys(chosen, f"R{world.batch}")
        parts.append(embedding.image_list(folder / "images", labels, seed))
    if slides and (random.random() < 0.5 or not images):
        name = random.choice(slides)
        parts.append(embedding.listed_slide(folder / "slide", name, ["B", "A"], seed))
    return _embedded(parts, ["--replace"]) if parts else None


def _embedded(parts: list[embedding.Part], options: list[str]) -> Arguments:
    rows = [part.rows for part in parts]
    return {"sources": [part.argument for part in parts], "rows": rows, "options": options}


def _embed_command(path: Path, arguments: Arguments) -> list[str]:
    return embedding.command(path, arguments["sources"], *arguments["options"])


def _run_embed(path: Path, arguments: Arguments) -> None:
    code = run_command(_embed_command(path, arguments))
    assert code == 0, f"embed ended with {code}"


def _after_embed(_: World, rows: Labels, arguments: Arguments) -> Labels:
    for part in arguments["rows"]:
        names = {_source(identity) for identity in part}
        rows = {**{i: label for i, label in rows.items() if _source(i) not in names}, **part}
    return rows


def _some_parts(arguments: Arguments) -> list[Arguments]:
    parts = arguments["rows"]
    chosen = (some for count in range(1, len(parts)) for some in combinations(parts, count))
    return [{**arguments, "rows": list(some)} for some in chosen]


def _plan_purge(world: World, rows: Labels, random: Random) -> Arguments | None:
    if not rows:
        return None
    world.purging = True
    return {"slides": [_source(random.choice(sorted(rows)))]}


def _after_purge(_: World, rows: Labels, arguments: Arguments) -> Labels:
    return {i: label for i, label in rows.items() if _source(i) not in arguments["slides"]}


def _plan_attach(_: World, rows: Labels, random: Random) -> Arguments | None:
    names = sorted({_source(identity) for identity in rows})
    return {"grades": {name: random.randrange(9) for name in names}} if names else None


def _records(path: Path, arguments: Arguments) -> Path:
    """A table of slides, beside the archive's folder."""
    lines = [f"{name}\t{grade}\n" for name, grade in arguments["grades"].items()]
    return _beside(path, "grades.tsv", "slide\tgrade\n" + "".join(lines))


def _source(identity: str) -> str:
    return identity.partition("@")[0]


def _repeated(option: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


OPERATIONS: Mapping[str, Operation] = {
    "add": Operation(_plan_add, _run_add, _after_add),
    "remove": Operation(
        _plan_remove,
        lambda path, a: remove_rows(
            path, Choice(ids=a["ids"], slides=a["slides"]), run_id=_run_id(path, "remove")
        ),
        _after_remove,
        lambda path, a: [
            *("archive", "remove", str(path), "--ignore-missing"),
            *_repeated("--id", a["ids"]),
            *_repeated("--slide", a["slides"]),
        ],
    ),
    "relabel": Operation(
        _plan_relabel,
        _run_relabel,
        lambda _, rows, a: {**rows, **a["labels"]},
        lambda path, a: ["archive", "relabel", str(path), _table(path, a["labels"])],
    ),
    "rename": Operation(
        _plan_rename,
        lambda path, a: rename_class(path, a["old"], a["new"], run_id=_run_id(path, "rename")),
        _after_rename,
        lambda path, a: ["archive", "relabel", str(path), "--rename", f"{a['old']}={a['new']}"],
    ),
    "compact": Operation(
        lambda *_: {},
        lambda path, _: compact(path, run_id=_run_id(path, "compact")),
        _unchanged,
        lambda path, _: ["archive", "compact", str(path)],
    ),
    "gc": Operation(
        lambda *_: {"keep": KEPT},
        lambda path, a: collect_garbage(path, keep=a["keep"], older_than=0),
        _unchanged,
        lambda path, a: [
            *("archive", "gc", str(path)),
            *("--keep", str(a["keep"]), "--older-than", "0"),
        ],
    ),
    "rollback": Operation(
        _plan_rollback,
        lambda path, a: roll_back(path, a["number"], run_id=_run_id(path, "rollback")),
        _after_rollback,
        lambda path, a: ["archive", "rollback", str(path), str(a["number"])],
    ),
    "merge": Operation(
        _plan_merge,
        lambda path, a: merge_archives(
            path, [Other(Path(a["other"]), a["prefix"])], run_id=_run_id(path, "merge")
        ),
        _after_merge,
        lambda path, a: [
            *("archive", "merge", str(path)),
            *(["--prefix", f"{a['prefix']}={a['other']}"] if a["prefix"] else [a["other"]]),
        ],
    ),
    "replace": Operation(_plan_replace, _run_replace, _after_replace),
    "embed": Operation(_plan_embed, _run_embed, _after_embed, _embed_command, _some_parts),
    "embed --replace": Operation(
        _plan_embed_replace, _run_embed, _after_embed, _embed_command, _some_parts
    ),
    "purge": Operation(
        _plan_purge,
        lambda path, a: purge_rows(path, Choice(slides=a["slides"]), run_id=_run_id(path, "purge")),
        _after_purge,
        lambda path, a: [
            *("archive", "remove", str(path), "--purge", "--ignore-missing"),
            *_repeated("--slide", a["slides"]),
        ],
    ),
    "attach": Operation(
        _plan_attach,
        lambda path, a: attach_records(
            path, _records(path, a), "slide", run_id=_run_id(path, "records attach")
        ),
        _unchanged,
        lambda path, a: [
            *("archive", "records", "attach", str(path), str(_records(path, a))),
            *("--key", "slide"),
        ],
    ),
    "index": Operation(
        lambda _, __, random: {"rebuild": random.random() < 0.5},
        lambda path, a: update_index(path, rebuild=a["rebuild"]),
        _unchanged,
        lambda path, a: [
            *("archive", "index", str(path)),
            *(["--rebuild"] if a["rebuild"] else []),
        ],
    ),
}


def _table(path: Path, labels: Labels) -> str:
    """Corrections, beside the archive's folder."""
    lines = [f"{identity}\t{label or ''}\n" for identity, label in labels.items()]
    return str(_beside(path, "corrections.tsv", "id\tlabel\n" + "".join(lines)))


def _beside(path: Path, name: str, text: str) -> Path:
    """A file outside of the folder of the archive, which may lie on a disk that is full."""
    file = path.parent.parent / name
    file.write_text(text)
    return file
