"""What processes say of their units is read whole, whoever writes and whoever was killed."""

from __future__ import annotations

import os
import time

import pytest

from patchknn.errors import InputError
from patchknn.jobs.claims import Claims
from patchknn.jobs.ledger import Ledger
from patchknn.jobs.records import Record, Records
from patchknn.jobs.status import run_status
from patchknn.jobs.units import Outcome


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / ".jobs"


@pytest.fixture
def claims(tmp_path):
    return tmp_path / "run" / ".claims"


def _read(folder):
    records = Records(folder)
    records.refresh()
    return records


def test_nothing_is_written_before_there_is_something_to_say(folder):
    Record(folder, "tile").end("done")
    assert not folder.exists()


def test_the_last_word_of_any_process_counts(folder):
    one, other = Record(folder, "tile"), Record(folder, "tile")
    one.plan(["b", "a", "ü\n"])
    other.plan(["a", "ü\n", "b"])
    one.note("a", "failed", detail="a is bad.")
    other.note("a", "done", count=7, seconds=1.23456)
    other.note("b", "done")
    one.note("b", "failed", detail="b is bad.", final=True)
    records = _read(folder)
    assert records.planned() == ["a", "b", "ü\n"]
    assert len(list(folder.glob("plan-*"))) == 1
    last = records.latest("a")
    assert (last.status, last.count, last.seconds) == ("done", 7, 1.235)
    assert records.failures("a") == []
    assert [(f.detail, f.final) for f in records.failures("b")] == [("b is bad.", True)]
    assert last.owner["pid"] == str(os.getpid())
    assert records.latest("ü\n") is None


def test_what_is_added_is_read_and_a_torn_line_waits_for_its_end(folder):
    record, records = Record(folder, "tile"), Records(folder)
    record.note("a", "done")
    records.refresh()
    (file,) = folder.glob("2*.ndjson")
    record.note("b", "done")
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    records.refresh()
    assert records.latest("b") is None
    file.write_bytes(whole)
    records.refresh()
    assert records.latest("b").status == "done"


@pytest.mark.parametrize("line", ["{", "[]", '{"event": "unit"}', '{"time": "x", "event": "unit"}'])
def test_a_line_that_makes_no_sense_is_passed_over(folder, line):
    record = Record(folder, "tile")
    record.note("a", "done")
    (file,) = folder.glob("2*.ndjson")
    with file.open("a") as text:
        text.write(line + "\n")
    record.note("b", "done")
    assert _read(folder).units() == ["a", "b"]


def test_sentences_are_cleaned_before_they_are_kept(folder):
    record = Record(folder, "embed", lambda text: text.replace("/home/ann/", "…/"))
    record.plan(["a", "/home/ann/t.h5"])
    record.note("a", "failed", detail="/home/ann/a.svs is bad.", inputs=["/home/ann/b.svs"])
    record.note("/home/ann/t.h5", "failed")
    (failure,) = _read(folder).failures("a")
    assert (failure.detail, failure.inputs) == ("…/a.svs is bad.", ("…/b.svs",))
    assert not any("ann" in file.read_text() for file in folder.iterdir())


def test_a_record_that_cannot_be_written_ends_no_run(folder, claims):
    folder.parent.mkdir()
    folder.write_text("a file in the way")
    with Ledger(claims, folder, "tile", retries=1) as ledger:
        ledger.plan(["a"])
        assert not ledger.settle(Outcome("a", "failed", "a is bad."))
        assert ledger.settle(Outcome("a", "failed", "a is bad."))


def test_a_failure_is_on_disk_before_the_unit_is_another_hosts(folder, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    record = Record(folder, "tile")
    record.note("a", "done")
    assert synced == []
    record.note("b", "failed")
    (file,) = folder.iterdir()
    assert synced == [file.stat().st_size]


def test_what_is_a_month_old_goes_with_the_next_run(folder):
    old, new = Record(folder, "tile"), Record(folder, "tile")
    old.plan(["gone"])
    old.note("gone", "done")
    (folder / "keep.txt").write_text("another's")
    for file in folder.iterdir():
        os.utime(file, (time.time() - 32 * 24 * 3600,) * 2)
    new.plan(["a"])
    new.end("done")
    assert _read(folder).planned() == ["a"]
    assert _read(folder).units() == []
    assert (folder / "keep.txt").exists()
    assert len(list(folder.iterdir())) == 3


def test_a_status_of_each_kind(folder, claims):
    with pytest.raises(InputError, match="no record of a run"):
        run_status(folder, claims)
    with Ledger(claims, folder, "tile", retries=0) as ledger:
        ledger.plan(["done", "empty", "bad", "running", "pending", "skipped", "late"])
        for unit, status in (("done", "done"), ("empty", "empty"), ("bad", "failed")):
            assert ledger.take(unit) is None
            ledger.settle(Outcome(unit, status, "bad is bad." if unit == "bad" else ""))
        assert ledger.take("running") is None
        ledger.settle(Outcome("skipped", "skipped"))
        found = run_status(folder, claims)
        assert {unit.unit: unit.status for unit in found.units} == {
            "done": "done", "empty": "done", "bad": "failed", "running": "running",
            "pending": "pending", "skipped": "pending", "late": "pending",
        }  # fmt: skip
        (bad,) = found.of("failed")
        assert (bad.attempts, bad.error) == (1, "bad is bad.")
        assert found.of("running")[0].pid == str(os.getpid())
    after = {unit.unit: unit.status for unit in run_status(folder, claims).units}
    assert (after["skipped"], after["running"]) == ("done", "pending")


def test_before_all_units_are_listed_what_is_known_is_shown(folder, claims):
    Record(folder, "embed").note("a", "done")
    found = run_status(folder, claims)
    assert ([unit.unit for unit in found.units], found.listed) == (["a"], False)


def test_the_claim_of_a_process_that_is_gone_is_not_running(folder, claims, monkeypatch):
    Record(folder, "tile").plan(["a"])
    with Claims(claims) as held:
        held.claim("a")
        assert [u.status for u in run_status(folder, claims).units] == ["running"]
        (link,) = claims.glob("a-*")
        os.utime(link, (time.time() - 1000,) * 2)
        assert [u.status for u in run_status(folder, claims).units] == ["pending"]


def test_of_which_run_a_failure_is_does_not_hang_on_clocks(folder, claims, monkeypatch):
    monkeypatch.setattr(time, "time", lambda clock=time.time: clock() + 300)
    with Ledger(claims, folder, "tile", retries=0) as ahead:
        ahead.settle(Outcome("a", "failed", "a is bad."))
    monkeypatch.undo()
    with Ledger(claims, folder, "tile", retries=0) as later:
        assert later.failed_before() == {"a"}
        assert later.take("a") is None
        monkeypatch.setattr(time, "time", lambda clock=time.time: clock() - 300)
        with Ledger(claims.with_name("other"), folder, "tile", retries=0) as behind:
            behind.settle(Outcome("b", "failed", "b is bad."))
        assert later.given_up("b").detail.endswith("b is bad.")


def test_an_array_counts_the_failures_of_its_other_tasks_only(folder, claims, monkeypatch):
    def started(array, task, **options):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        return Ledger(claims, folder, "tile", retries=0, **options)

    with started("7", "1") as first:
        first.settle(Outcome("a", "failed", "a is bad."))
    with started("7", "2") as later:
        assert later.given_up("a").detail.endswith(", 7_1): a is bad.")
    with started("7", "1") as requeued:
        assert requeued.given_up("a") is None
    with started("8", "2") as another:
        assert another.given_up("a") is None
    with started("7", "2", only_failed=True) as second_try:
        assert second_try.given_up("a") is None
