"""Units run here or in workers; what happens to one is not the others' concern."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from patchknn.errors import StoppedError
from patchknn.jobs import engines
from patchknn.jobs.claims import Claims
from patchknn.jobs.engines import local_engine
from patchknn.jobs.ledger import Ledger
from patchknn.jobs.records import Records
from patchknn.jobs.run import run_units
from patchknn.jobs.units import Unit

HERE = str(Path(__file__).parent)


@pytest.fixture
def act(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", HERE)
    import work_for_tests

    yield work_for_tests.act
    sys.modules.pop("work_for_tests")


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "c", tmp_path / "r", "test") as ledger:
        yield ledger
    assert not (tmp_path / "c").exists()


def _run(units, act, ledger=None, workers=1):
    return run_units(units, local_engine(act, workers), ledger)


def _units(*payloads):
    return [Unit(f"u{number}", payload) for number, payload in enumerate(payloads)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_failure_is_one_units_and_the_rest_is_done(act, ledger, workers):
    units = _units("ok", "bad", "gone", "bug", "ok")
    outcomes = {o.unit: o for o in _run(units, act, ledger, workers)}
    assert [outcomes[unit.name].status for unit in units] == [
        "done", "failed", "failed", "failed", "done",
    ]  # fmt: skip
    assert outcomes["u1"].detail == "u1 is bad."
    assert outcomes["u2"].detail == "u2: No such file."
    assert "unexpected KeyError" in outcomes["u3"].detail
    assert (outcomes["u0"].count == os.getpid()) == (workers < 2)


def test_a_worker_that_dies_costs_its_unit_only(act, ledger):
    units = _units("die", "ok", "die", "ok", "ok", "die")
    outcomes = {o.unit: o for o in _run(units, act, ledger, 2)}
    failed = {unit for unit, outcome in outcomes.items() if outcome.status == "failed"}
    assert failed == {"u0", "u2", "u5"}
    assert len(outcomes) == 6
    assert "SIGKILL" in outcomes["u0"].detail


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_run(act, workers):
    with pytest.raises(OSError, match="No space left"):
        list(_run(_units("ok", "full", "ok", "ok"), act, workers=workers))


def test_a_stop_is_no_units_failure(act, ledger):
    with pytest.raises(StoppedError):
        list(_run(_units("ok", "stop"), act, ledger))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_is_tried_again_in_the_end(act, ledger, workers, tmp_path):
    units = _units(f"once:{tmp_path / 'mark'}", "ok", "bad", "conflict")
    outcomes = {o.unit: o for o in _run(units, act, ledger, workers)}
    assert {name: o.status for name, o in outcomes.items()} == {
        "u0": "done", "u1": "done", "u2": "failed", "u3": "failed",
    }  # fmt: skip
    records = Records(tmp_path / "r")
    records.refresh()
    assert (len(records.failures("u2")), len(records.failures("u3"))) == (2, 1)
    assert records.failures("u0") == []


@pytest.mark.parametrize("retries", [0, 3])
def test_the_number_of_tries_is_ones_own_to_choose(act, tmp_path, retries):
    with Ledger(tmp_path / "c", tmp_path / "r", "test", retries=retries) as ledger:
        assert [o.status for o in _run(_units("bad"), act, ledger)] == ["failed"]
    records = Records(tmp_path / "r")
    records.refresh()
    assert len(records.failures("u0")) == 1 + retries


def test_what_failed_often_enough_elsewhere_meanwhile_is_not_tried_here(act, ledger, tmp_path):
    with Ledger(tmp_path / "c", tmp_path / "r", "test") as other:
        assert [o.status for o in _run(_units("bad", "bad"), act, other)] == ["failed"] * 2
    (tmp_path / "t").mkdir()
    units = [*_units(f"touch:{tmp_path / 't'}"), Unit("u2", "ok")]
    outcomes = {o.unit: o for o in _run(units, act, ledger)}
    assert (outcomes["u0"].status, outcomes["u2"].status) == ("skipped", "done")
    assert "it failed elsewhere" in outcomes["u0"].detail
    assert outcomes["u0"].detail.endswith("u0 is bad.")
    assert not (tmp_path / "t" / "u0").exists()


def test_what_failed_in_an_earlier_run_is_tried_anew(act, tmp_path):
    for _ in range(2):
        with Ledger(tmp_path / "c", tmp_path / "r", "test") as ledger:
            assert [o.status for o in _run(_units("bad"), act, ledger)] == ["failed"]
    with Ledger(tmp_path / "c", tmp_path / "r", "test") as ledger:
        assert ledger.failed_before() == {"u0"}
        assert [o.status for o in _run(_units("ok"), act, ledger)] == ["done"]
    with Ledger(tmp_path / "c", tmp_path / "r", "test") as ledger:
        assert ledger.failed_before() == set()


def test_closing_early_stops_the_workers_and_releases_their_claims(act, tmp_path):
    units = _units(*["ok"] * 20)
    with Ledger(tmp_path / "c", tmp_path / "r", "test") as ledger:
        outcomes = _run(units, act, ledger, 2)
        next(outcomes)
        outcomes.close()
    with Claims(tmp_path / "c") as claims:
        assert all(claims.claim(unit.name) for unit in units)


def test_a_stop_that_a_library_swallows_still_stops_the_run(act, ledger, tmp_path):
    def stop(number, frame):
        message = "stopped."
        raise StoppedError(message)

    usual = signal.signal(signal.SIGTERM, stop)
    try:
        units = _units("ok", "swallow", f"touch:{tmp_path}")
        with pytest.raises(StoppedError):
            list(_run(units, act, ledger))
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert not (tmp_path / "u2").exists()


def test_a_worker_that_swallows_its_stop_ends(act, ledger, tmp_path, monkeypatch):
    killed = []
    kill = SpawnProcess.kill
    monkeypatch.setattr(engines, "_STOP_SECONDS", 60.0)
    monkeypatch.setattr(SpawnProcess, "kill", lambda p: (killed.append(p), kill(p)))
    fifos = [tmp_path / "one", tmp_path / "two"]
    for fifo in fifos:
        os.mkfifo(fifo)
    units = _units("ok", *[f"wait:{fifo}" for fifo in fifos])
    outcomes = _run(units, act, ledger, 2)
    assert next(outcomes).unit == "u0"
    assert [fifo.read_text() for fifo in fifos] == ["here", "here"]
    outcomes.close()
    assert not killed


def test_what_another_process_has_is_left_to_it(act, ledger, tmp_path):
    with Claims(tmp_path / "c") as other:
        other.claim("u1")
        units = _units(*[f"touch:{tmp_path}"] * 3)
        outcomes = list(_run(units, act, ledger))
    assert [(o.unit, o.status) for o in outcomes] == [
        ("u0", "done"), ("u2", "done"), ("u1", "skipped"),
    ]  # fmt: skip
    assert f"process {os.getpid()}" in outcomes[-1].detail
    assert not (tmp_path / "u1").exists()


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    """Whoever takes the unit over must not find it overwritten later."""
    for name in ("started", "go"):
        os.mkfifo(tmp_path / name)
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, HERE, str(tmp_path)])
    worker = int((tmp_path / "started").read_text())
    watch = os.pidfd_open(worker)
    parent.kill()
    parent.wait()
    assert select.select([watch], [], [], 60)[0]  # it ended
    os.close(watch)


_PARENT = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
os.environ["PYTHONPATH"] = os.pathsep.join([sys.argv[1], os.environ.get("PYTHONPATH", "")])
from work_for_tests import act
from patchknn.jobs.engines import WorkerProcesses
from patchknn.jobs.run import run_units
from patchknn.jobs.units import Unit
if __name__ == "__main__":
    list(run_units([Unit("u", f"hang:{sys.argv[2]}")], WorkerProcesses(act, 2)))
"""


def test_no_units_is_no_work(act):
    assert list(_run([], act, workers=4)) == []
