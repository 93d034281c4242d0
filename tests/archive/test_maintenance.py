"""Random sequences of changes against a dictionary: ids, labels and neighbours are the same."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.collect import collect_garbage
from patchknn.archive.compact import compact
from patchknn.archive.history import label_history
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.relabel import Correction, relabel_choice, relabel_patches, rename_class
from patchknn.archive.remove import remove_rows
from patchknn.archive.rollback import roll_back
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import DamageError
from patchknn.search.engine import Searcher
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings


class Model:
    """What the archive must hold: id → (label, feature)."""

    def __init__(self, path, bundle, make_rows, seed):
        self.path, self.bundle, self.make_rows = path, bundle, make_rows
        self.random = np.random.default_rng(seed)
        self.rows = {}
        self.kept = {}
        self.told = 0
        self.batch = 0

    def embed(self):
        self.batch += 1
        images = [f"i{self.batch}-{n}.png" for n in range(self.random.integers(1, 4))]
        slides = [f"s{self.batch}-{n}.svs" for n in range(self.random.integers(1, 3))]
        rows = self.make_rows(self.bundle, seed=self.batch, images=images, slides=slides)
        with ArchiveWriter(self.path, format=("zarr", "hdf5")[self.batch % 2]) as writer:
            writer.add(rows)
            writer.publish()
        for n in range(len(rows)):
            source = rows.sources[rows.source[n]].name
            x, y = rows.coords[n].tolist()
            identity = source if x < 0 else f"{source}@{x}_{y}"
            label = None if rows.labels[n] < 0 else rows.classes[rows.labels[n]]
            self.rows[identity] = (label, rows.features[n])

    def some_ids(self, count=4):
        ids = sorted(self.rows)
        return list(self.random.choice(ids, min(count, len(ids)), replace=False)) if ids else []

    def remove(self):
        ids = self.some_ids()
        report = remove_rows(self.path, Choice(ids=[*ids, "nothing.png"]))
        assert (report.rows, report.missing) == (len(ids), ("nothing.png",))
        for identity in ids:
            del self.rows[identity]

    def remove_slide(self):
        if self.rows:
            slide = self.some_ids(1)[0].split("@")[0]
            remove_rows(self.path, Choice(slides=[slide]))
            self.rows = {i: v for i, v in self.rows.items() if i.split("@")[0] != slide}

    def relabel(self):
        new = {i: self.random.choice(["A", "B", "C", None]) for i in self.some_ids(6)}
        report = relabel_patches(
            self.path, {i: Correction(v, "Ann", "seen") for i, v in new.items()}
        )
        changed = {i for i, v in new.items() if self.rows[i][0] != v}
        assert (report.rows, report.unchanged) == (len(changed), len(new) - len(changed))
        self.told += len(changed)
        for identity, label in new.items():
            self.rows[identity] = (label, self.rows[identity][1])

    def rename(self):
        old, new = self.random.choice(["A", "B"], 2)
        if old in open_archive(self.path).classes and old != new:
            report = rename_class(self.path, old, new)
            self.told += report.rows > 0
            self.rows = {i: (new if v[0] == old else v[0], v[1]) for i, v in self.rows.items()}

    def compact(self):
        compact(self.path)
        assert not open_archive(self.path).manifest.changes

    def index(self):
        update_index(self.path)

    def back(self):
        if self.kept:
            number = int(self.random.choice(sorted(self.kept)))
            roll_back(self.path, number)
            self.rows = dict(self.kept[number])

    def keep(self):
        self.kept[open_archive(self.path).number] = dict(self.rows)

    def check(self):
        snapshot = open_archive(self.path)
        listed = {row.id: row.label for row in list_rows(snapshot)}
        assert listed == {i: v[0] for i, v in self.rows.items()}
        assert len(snapshot) == len(self.rows)
        names = {i.split("@")[0] for i in self.rows}
        assert snapshot.n_sources == len(names)
        assert sorted(source.name for source in snapshot.sources()) == sorted(names)
        assert len(list(label_history(self.path))) == self.told
        for identity in self.some_ids(3):
            row = snapshot.locate(identity)
            assert snapshot.row(row).id == identity
            assert snapshot.row(row).label == self.rows[identity][0]
        self.check_search(snapshot)

    def check_search(self, snapshot):
        settings = SearchSettings(k=5, radius=16, max_radius=16)  # every row is within
        searcher = Searcher(snapshot, settings)
        for seed in range(3):
            target = np.random.default_rng(seed).normal(size=12).astype(np.float16)
            answer = searcher.search(Query("q", target))
            ids = sorted(self.rows)
            distances = np.array(
                [np.linalg.norm(self.rows[i][1].astype(float) - target) for i in ids]
            )
            nearest = [ids[n] for n in np.argsort(distances, kind="stable")[:5]]
            assert [n.id for n in answer.neighbours] == nearest
            assert [n.label for n in answer.neighbours] == [self.rows[i][0] for i in nearest]
            assert answer.ball == len(ids)


@pytest.mark.parametrize("seed", range(6))
def test_random_changes_leave_what_a_dictionary_holds(empty, bundle, make_rows, seed):
    model = Model(empty, bundle, make_rows, seed)
    model.embed()
    names = ["embed", "remove", "remove_slide", "relabel", "rename", "compact", "index", "back"]
    for step in range(30):
        if step % 7 == 3:
            model.keep()
        getattr(model, str(model.random.choice(names)))()
        model.check()
    assert verify_archive(empty) == []
    newest = open_archive(empty).number
    collect_garbage(empty, keep=1, older_than=0)
    model.check()
    assert open_archive(empty).number == newest
    assert verify_archive(empty) == []
    kept = open_archive(empty).manifest
    on_disk = {f.name.split(".")[0] for f in (empty / "shards").iterdir()}
    assert on_disk == {entry.uuid for entry in kept.shards}


def test_what_was_removed_may_be_embedded_again(archive, bundle, make_rows):
    before = {row.id for row in list_rows(open_archive(archive))}
    remove_rows(archive, Choice(patients=["P0"]))
    left = {row.id for row in list_rows(open_archive(archive))}
    assert left < before
    with ArchiveWriter(archive) as writer:
        writer.add(make_rows(bundle))
        writer.add(make_rows(bundle, seed=1, images=["ü b.png", "d.png"], slides=["t1", "t2"]))
        writer.publish()
    snapshot = open_archive(archive)
    assert {row.id for row in list_rows(snapshot)} == before
    assert snapshot.n_sources == 8
    assert all(snapshot.locate(identity) is not None for identity in before)
    assert verify_archive(archive) == []


def test_a_choice_by_label_and_slide(archive):
    snapshot = open_archive(archive)
    wanted = {r.id for r in list_rows(snapshot) if r.source == "s1.svs" and r.label == "A"}
    report = relabel_choice(archive, Choice(slides=["s1.svs"], labels=["A"]), Correction("Z"))
    assert report.rows == len(wanted) > 0
    assert {r.id for r in list_rows(open_archive(archive)) if r.label == "Z"} == wanted


def test_compact_joins_no_rows_with_thumbnails_to_others_without(archive, bundle, make_rows):
    for seed, names in enumerate((["t1.png", "t2.png"], ["t3.png"])):
        with ArchiveWriter(archive) as writer:
            writer.add(make_rows(bundle, seed=seed, images=names, slides=[], thumbnails=True))
            writer.publish()

    def pictures():
        snapshot = open_archive(archive)
        rows = ((row.id, *snapshot.shard_of(row.row)) for row in list_rows(snapshot))
        return {identity: shard.thumbnail(local) for identity, shard, local in rows}

    before = pictures()
    assert sum(picture is not None for picture in before.values()) == 3
    assert compact(archive).shards_written == 2
    assert pictures() == before
    assert compact(archive).number is None


@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("compact", compact),
        ("relabel", lambda path: relabel_patches(path, {"d.png": Correction("NEW")})),
        ("remove", lambda path: remove_rows(path, Choice(ids=["d.png"]))),
    ],
)
def test_a_change_that_cannot_be_counted_leaves_nothing(archive, monkeypatch, module, change):
    remove_rows(archive, Choice(ids=["a.png"]))
    before = sorted(archive.rglob("*"))

    def damaged(_):
        message = "a shard is damaged"
        raise DamageError(message)

    module = importlib.import_module(f"patchknn.archive.{module}")
    monkeypatch.setattr(module, "totals_of", damaged)
    with pytest.raises(DamageError):
        change(archive)
    assert sorted(archive.rglob("*")) == before
