"""Units run here or in workers; what happens to one is not the others' concern."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from patchknn.errors import StoppedError
from patchknn.jobs import run
from patchknn.jobs.claims import Claims
from patchknn.jobs.run import Unit, run_units

HERE = str(Path(__file__).parent)


@pytest.fixture
def act(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", HERE)
    import work_for_tests

    yield work_for_tests.act
    sys.modules.pop("work_for_tests")


def _units(*payloads):
    return [Unit(f"u{number}", payload) for number, payload in enumerate(payloads)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_failure_is_one_units_and_the_rest_is_done(act, tmp_path, workers):
    units = _units("ok", "bad", "gone", "bug", "ok")
    outcomes = {
        o.unit: o for o in run_units(units, act, claims_folder=tmp_path / "c", workers=workers)
    }
    assert [outcomes[unit.name].status for unit in units] == [
        "done", "failed", "failed", "failed", "done",
    ]  # fmt: skip
    assert outcomes["u1"].detail == "u1 is bad."
    assert outcomes["u2"].detail == "u2: No such file."
    assert "unexpected KeyError" in outcomes["u3"].detail
    assert (outcomes["u0"].count == os.getpid()) == (workers < 2)
    assert not (tmp_path / "c").exists()


def test_a_worker_that_dies_costs_its_unit_only(act, tmp_path):
    units = _units("die", "ok", "die", "ok", "ok", "die")
    outcomes = {o.unit: o for o in run_units(units, act, claims_folder=tmp_path / "c", workers=2)}
    failed = {unit for unit, outcome in outcomes.items() if outcome.status == "failed"}
    assert failed == {"u0", "u2", "u5"}
    assert len(outcomes) == 6
    assert "SIGKILL" in outcomes["u0"].detail


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_run(act, workers):
    with pytest.raises(OSError, match="No space left"):
        list(run_units(_units("ok", "full", "ok", "ok"), act, workers=workers))


def test_a_stop_is_no_units_failure(act, tmp_path):
    with pytest.raises(StoppedError):
        list(run_units(_units("ok", "stop"), act, claims_folder=tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_closing_early_stops_the_workers_and_releases_their_claims(act, tmp_path):
    units = _units(*["ok"] * 20)
    outcomes = run_units(units, act, claims_folder=tmp_path / "c", workers=2)
    next(outcomes)
    outcomes.close()
    with Claims(tmp_path / "c") as claims:
        assert all(claims.claim(unit.name) for unit in units)


def test_a_stop_that_a_library_swallows_still_stops_the_run(act, tmp_path):
    def stop(number, frame):
        message = "stopped."
        raise StoppedError(message)

    usual = signal.signal(signal.SIGTERM, stop)
    try:
        units = _units("ok", "swallow", f"touch:{tmp_path}")
        with pytest.raises(StoppedError):
            list(run_units(units, act, claims_folder=tmp_path / "c"))
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert not (tmp_path / "u2").exists()
    assert not (tmp_path / "c").exists()


def test_a_worker_that_swallows_its_stop_ends_and_leaves_no_claim(act, tmp_path, monkeypatch):
    killed = []
    kill = SpawnProcess.kill
    monkeypatch.setattr(run, "_STOP_SECONDS", 60.0)
    monkeypatch.setattr(SpawnProcess, "kill", lambda p: (killed.append(p), kill(p)))
    fifos = [tmp_path / "one", tmp_path / "two"]
    for fifo in fifos:
        os.mkfifo(fifo)
    units = _units("ok", *[f"wait:{fifo}" for fifo in fifos])
    outcomes = run_units(units, act, claims_folder=tmp_path / "c", workers=2)
    assert next(outcomes).unit == "u0"
    assert [fifo.read_text() for fifo in fifos] == ["here", "here"]
    outcomes.close()
    assert not killed
    assert not (tmp_path / "c").exists()


def test_what_another_process_has_is_left_to_it(act, tmp_path):
    with Claims(tmp_path / "c") as other:
        other.claim("u1")
        units = _units(*[f"touch:{tmp_path}"] * 3)
        outcomes = list(run_units(units, act, claims_folder=tmp_path / "c"))
    assert [(o.unit, o.status) for o in outcomes] == [
        ("u0", "done"), ("u2", "done"), ("u1", "skipped"),
    ]  # fmt: skip
    assert f"process {os.getpid()}" in outcomes[-1].detail
    assert not (tmp_path / "u1").exists()


def test_no_units_is_no_work(act):
    assert list(run_units([], act, workers=4)) == []
