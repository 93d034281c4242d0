"""Withdrawn consent: no file of the archive knows the patient any more."""

from __future__ import annotations

import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.history import label_history
from patchknn.archive.index.update import update_index
from patchknn.archive.listing import list_rows
from patchknn.archive.purge import purge_rows
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.rollback import roll_back
from patchknn.archive.runs import write_run
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.errors import InputError, UsageError


def _knowing(path, *words):
    """Files whose name or content has one of the words."""
    found = []
    for file in path.rglob("*"):
        if any(word in file.name for word in words):
            found.append(file)
        if file.is_file() and any(word.encode() in file.read_bytes() for word in words):
            found.append(file)
    return found


@pytest.fixture
def told(archive):
    """An archive whose history, runs and index tell of all its patients."""
    relabel_patches(
        archive,
        {i: Correction("Z", "Ann") for i in ("s1.svs@0_896", "s2.svs@0_1344", "t1@0_896", "b.png")},
    )
    update_index(archive)
    write_run(archive, "r1", {"argv": ["embed", "/x/s1.svs"], "failures": [{"name": "s1.svs"}]})
    return archive


def test_a_patient_is_forgotten_by_every_file(told):
    snapshot = open_archive(told)
    of_patient = {row.source for row in list_rows(snapshot) if row.patient == "P0"}
    assert of_patient == {"s1.svs", "t1"}
    left = {row.id: row.label for row in list_rows(snapshot) if row.patient != "P0"}
    features = [shard.features[0].tobytes() for shard in snapshot.shards]
    assert _knowing(told, "s1.svs", "P0")
    purge = purge_rows(told, Choice(patients=["P0"]))
    assert (purge.rows, purge.sources, purge.label_events, purge.runs) == (10, 2, 2, 1)
    update_index(told)
    assert _knowing(told, "s1.svs", "t1@", "P0") == []
    assert {row.id: row.label for row in list_rows(open_archive(told))} == left
    assert {event.id for event in label_history(told)} == {"s2.svs@0_1344", "b.png"}
    assert {event.by for event in label_history(told)} == {"Ann"}
    assert verify_archive(told) == []
    assert len(features) == 2
    with pytest.raises(InputError, match="purged"):
        roll_back(told, 1)


def test_the_second_run_finishes_what_the_first_began(told):
    remove_rows(told, Choice(patients=["P0"]))  # as if it had been killed just then
    purge = purge_rows(told, Choice(patients=["P0"]))
    assert (purge.rows, purge.missing) == (0, ())
    update_index(told)
    assert _knowing(told, "s1.svs", "t1@", "P0") == []
    again = purge_rows(told, Choice(patients=["P0"]))
    assert again.missing == ("P0",)
    assert verify_archive(told) == []


def test_patches_by_id_are_forgotten_and_their_slide_stays(told):
    features = {}
    for shard in open_archive(told).shards:
        for row, source in enumerate(shard.source.tolist()):
            x = int(shard.coords[row, 0])
            features[shard.source_names[source], x] = shard.features[row].tobytes()
    gone = features["s1.svs", 448]
    assert [f for f in told.rglob("*") if f.is_file() and gone in f.read_bytes()]
    purge_rows(told, Choice(ids=["s1.svs@448_896"]))
    assert not [f for f in told.rglob("*") if f.is_file() and gone in f.read_bytes()]
    kept = [row.id for row in list_rows(open_archive(told)) if row.source == "s1.svs"]
    assert sorted(kept) == [f"s1.svs@{x}_896" for x in (0, 224, 672, 896)]


def test_another_writer_goes_on_meanwhile(told, bundle, make_rows):
    with ArchiveWriter(told) as writer:
        writer.add(make_rows(bundle, seed=5, images=["n.png"], slides=["new"]))
        writer.flush()
        purge_rows(told, Choice(patients=["P0"]))
        writer.publish()
    sources = {row.source for row in list_rows(open_archive(told))}
    assert {"n.png", "new"} <= sources
    assert "s1.svs" not in sources
    assert verify_archive(told) == []


@pytest.mark.parametrize(
    "choice", [Choice(), Choice(labels=["A"]), Choice(slides=["a"], labels=["A"])]
)
def test_it_must_be_said_which(told, choice):
    with pytest.raises(UsageError, match="--purge takes"):
        purge_rows(told, choice)


def test_attached_tables_forget_too(told, tmp_path):
    from patchknn.archive.records_attach import attach_records

    table = tmp_path / "clinical.csv"
    table.write_text("patient,organ\nP0,kidney-of-P0\nP1,colon\n")
    attach_records(told, table, key="patient")
    assert _knowing(told, "kidney-of-P0")
    purge_rows(told, Choice(patients=["P0"]))
    assert _knowing(told, "kidney-of-P0", "P0") == []
    (record,) = open_archive(told).manifest.records
    assert (record.name, record.rows) == ("clinical.csv", 1)
    assert verify_archive(told) == []
