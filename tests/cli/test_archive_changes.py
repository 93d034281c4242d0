"""``archive remove``, ``relabel``, ``compact``, ``gc``, ``rollback``, ``merge`` as commands."""

from __future__ import annotations

import csv
import json

import pytest

from patchknn.archive.listing import list_rows
from patchknn.archive.snapshot import open_archive


def _one(result):
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    return json.loads(line)


def _ids(path):
    return {row.id: row.label for row in list_rows(open_archive(path))}


def _runs(path):
    return [json.loads(file.read_text()) for file in (path / "runs").glob("*.json")]


def test_removing_is_recorded_and_said_again(patchknn, archive):
    before, runs = _ids(archive), len(_runs(archive))
    name = next(iter(before)).split("@")[0]
    dry = _one(patchknn("archive", "remove", archive, "--slide", name, "--dry-run"))
    assert dry["dry_run"]
    assert (_ids(archive), len(_runs(archive))) == (before, runs)
    done = _one(patchknn("archive", "remove", archive, "--slide", name))
    assert done["rows_removed"] == dry["rows_removed"] == len(before) - len(_ids(archive)) > 0
    log = json.loads(patchknn("archive", "log", archive, "--limit", 1).out)
    assert (log["action"], log["rows_removed"]) == ("remove", done["rows_removed"])
    assert log["command"] is not None
    again = patchknn("archive", "remove", archive, "--slide", name)
    assert again.code == 3
    assert f"{name}: {archive} has no such patch, slide or patient." in again.err
    assert len(_runs(archive)) == runs + 1  # what came to nothing is not recorded
    kept = patchknn("archive", "remove", archive, "--slide", name, "--ignore-missing")
    assert json.loads(kept.out)["snapshot"] is None
    assert kept.code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("remove",), "Say what to remove"),
        (("relabel",), "Give one of a table, --annotations, --rename OLD=NEW, and --to CLASS"),
        (("relabel", "--to", "X"), "--to CLASS needs --id"),
        (("relabel", "--rename", "AB"), "say OLD=NEW"),
        (("relabel", "--rename", "NOPE=A"), "has no such class"),
        (("rollback", 99), "has no snapshot 99"),
        (("gc", "--keep", 0), "--keep"),
        (("merge",), "Give the archives to take in"),
        (("merge", "--prefix", "X"), "say SITE=ARCHIVE"),
        (("remove", "--purge", "--label", "A"), "--purge takes"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(patchknn, archive, words, sentence):
    command, *rest = words
    result = patchknn("archive", command, archive, *rest)
    assert result.code in {1, 2}
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert open_archive(archive).number == 2


def test_a_table_of_corrections_and_its_history(patchknn, archive, tmp_path):
    first, second, *_ = sorted(_ids(archive))
    table = tmp_path / "corrections.tsv"
    table.write_text(f"id\tlabel\treason\n{first}\tNEW\tblurred\n{second}\t\t\nnothing\tX\t\n")
    result = patchknn("archive", "relabel", archive, table, "--by", "Ann")
    assert result.code == 3
    assert "nothing" in result.err
    assert (_ids(archive)[first], _ids(archive)[second]) == ("NEW", None)
    lines = patchknn("archive", "log", archive, "--labels").out.splitlines()
    told = {row["id"]: (row["new"], row["by"], row["reason"]) for row in map(json.loads, lines)}
    assert told[first] == ("NEW", "Ann", "blurred")
    _one(patchknn("archive", "compact", archive))
    assert patchknn("archive", "log", archive, "--labels").out.splitlines() == lines
    table.write_text(f"id,label\n{first},A\n{first},B\n")
    result = patchknn("archive", "relabel", archive, table.rename(tmp_path / "c.csv"))
    assert result.code == 1
    assert "line 2" in result.err
    assert "line 3" in result.err


def test_an_earlier_snapshot_can_be_seen_listed_and_had_again(patchknn, archive):
    now = _ids(archive)
    number = open_archive(archive).number
    name = sorted(now)[0]
    _one(patchknn("archive", "remove", archive, "--id", name))
    assert len(patchknn("archive", "list", archive, "--at", number).out.splitlines()) == len(now)
    assert _one(patchknn("archive", "info", archive, "--at", number))["rows"] == len(now)
    answer = json.loads(patchknn("query", archive, "--id", name, "--at", number).out)
    assert answer["query"] == name
    assert patchknn("query", archive, "--id", name).code == 1
    back = _one(patchknn("archive", "rollback", archive, number))
    assert back["rows_added"] == 1
    assert _ids(archive) == now
    new = patchknn("archive", "list", archive, "--since", number + 1).out.splitlines()
    assert [json.loads(line)["id"] for line in new] == [name]


def test_compact_and_gc_do_nothing_twice(patchknn, archive):
    before = _ids(archive)
    first = _one(patchknn("archive", "compact", archive))
    assert (first["shards_before"], first["shards_written"]) == (2, 1)
    assert _one(patchknn("archive", "compact", archive))["snapshot"] is None
    dry = _one(patchknn("archive", "gc", archive, "--keep", 1, "--older-than", 0, "--dry-run"))
    assert dry["shards"] == 2
    assert _one(patchknn("archive", "gc", archive, "--keep", 1))["shards"] == 0  # too young
    gone = _one(patchknn("archive", "gc", archive, "--keep", 1, "--older-than", 0))
    assert {k: v for k, v in dry.items() if k != "dry_run"} == gone
    assert _one(patchknn("archive", "gc", archive, "--keep", 1, "--older-than", 0))["bytes"] == 0
    assert _ids(archive) == before
    assert patchknn("archive", "verify", archive).code == 0


def test_sites_become_one_archive(patchknn, archive, tmp_path):
    whole = tmp_path / "whole"
    words = ("archive", "merge", whole, "--prefix", f"A={archive}", "--prefix", f"B={archive}")
    done = _one(patchknn(*words))
    assert done["rows_added"] == 2 * len(_ids(archive))
    assert {name.split("/")[0] for name in _ids(whole)} == {"A", "B"}
    assert _one(patchknn(*words))["duplicates"] == done["rows_added"]


def test_labels_that_disagree_are_written_for_relabel(patchknn, archive, tmp_path):
    whole, file = tmp_path / "whole", tmp_path / "conflicts.csv"
    patchknn("archive", "merge", whole, archive)
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("id,label\na.png,NEW\nb.png,NEW\n")
    assert patchknn("archive", "relabel", archive, corrections).code == 0
    merged = patchknn("archive", "merge", whole, archive, "--conflicts", file)
    assert (merged.code, json.loads(merged.out)["label_conflicts"]) == (3, 2)
    assert "b.png: A is kept" in merged.err
    rows = list(csv.DictReader(file.open()))
    assert {(row["id"], row["label"], row["archive"]) for row in rows} == {
        (name, "NEW", str(archive)) for name in ("a.png", "b.png")
    }
    assert _one(patchknn("archive", "relabel", whole, file))["rows_relabelled"] == 2
    assert _one(patchknn("archive", "merge", whole, archive))["label_conflicts"] == 0
