"""Units and functions on the workers of a Dask cluster, which lives in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from patchknn.errors import ConflictError, InputError, PatchknnError
from patchknn.jobs.cluster import Cluster
from patchknn.jobs.ledger import Ledger
from patchknn.jobs.run import run_units
from patchknn.jobs.units import Outcome, Unit

distributed = pytest.importorskip("distributed")

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def cluster():
    options = {"processes": False, "dashboard_address": ":0", "n_workers": 2}
    with distributed.Client(threads_per_worker=1, **options) as client:
        yield Cluster(client, "here")


@pytest.fixture
def act(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import work_for_tests

    yield work_for_tests.act
    sys.modules.pop("work_for_tests")


def _units(*payloads):
    return [Unit(f"u{number}", payload) for number, payload in enumerate(payloads)]


def test_units_are_done_tried_again_and_noted(cluster, act, tmp_path):
    units = _units("ok", "bad", f"once:{tmp_path / 'mark'}", "conflict", "bug", *["ok"] * 20)
    with Ledger(tmp_path / "c", tmp_path / "r", "test") as ledger:
        outcomes = {o.unit: o for o in run_units(units, cluster.engine(act), ledger)}
    failed = {name: o.detail for name, o in outcomes.items() if o.status == "failed"}
    assert len(outcomes) == 25
    assert failed.keys() == {"u1", "u3", "u4"}
    assert failed["u1"] == "u1 is bad."
    assert not (tmp_path / "c").exists()


def test_a_full_disk_ends_the_run(cluster, act, tmp_path):
    with pytest.raises(OSError, match="No space left"):
        list(run_units(_units("ok", "full", *["ok"] * 9), cluster.engine(act)))


def test_no_units_is_no_work(cluster, act):
    assert list(run_units([], cluster.engine(act))) == []


def test_a_unit_that_costs_its_workers_is_that_units_failure(cluster, act, monkeypatch):
    class Lost:
        key, status = "one", "error"

        def exception(self):
            return distributed.KilledWorker("one", None, 3)

    engine = cluster.engine(act)
    engine._units["one"], engine._futures["one"] = Unit("u0", "die"), Lost()
    engine._completed.put(Lost())
    ((unit, outcome),) = engine.finished()
    assert (unit.name, outcome.status) == ("u0", "failed")
    assert outcome.detail == "u0: the workers that had it died, 4 of them."


def test_results_come_in_order_and_items_are_drawn_a_few_ahead(cluster):
    drawn = []

    def items():
        for number in range(50):
            drawn.append(number)
            yield number

    results = cluster.map(_square, items())
    assert next(results) == 0
    assert len(drawn) <= cluster.room
    assert list(results) == [number**2 for number in range(1, 50)]


def test_what_the_function_raises_is_raised(cluster):
    results = cluster.map(_fails_at_three, range(9))
    with pytest.raises(InputError, match="three is bad"):
        list(results)


def test_parts_of_the_work_are_those_of_parts_of_the_workers(cluster):
    addresses = set(cluster.client.nthreads())
    homes = [set(cluster._at(number, 2)["workers"]) for number in (0, 1)]
    assert homes[0] | homes[1] == addresses
    assert list(map(len, homes)) == [1, 1]
    assert set(cluster._at(0, 1)["workers"]) == addresses
    assert len(cluster._at(6, 7)["workers"]) == 1
    where = set(cluster.map(_who, [0] * 20, home=lambda item: (item, 2)))
    assert where <= addresses


def test_a_scheduler_that_is_gone_is_said(cluster, monkeypatch):
    class Gone:
        def done(self):
            return True

        def result(self):
            raise distributed.CancelledError("future")

    said = "the scheduler is gone; what was finished is kept"
    with pytest.raises(PatchknnError, match=said):
        cluster.result(Gone())


def test_a_scheduler_that_ends_is_said_by_whatever_is_asked_next(act):
    options = {"processes": False, "dashboard_address": ":0", "n_workers": 1}
    said = "the scheduler is gone; what was finished is kept"
    with distributed.LocalCluster(**options) as local, distributed.Client(local) as client:
        gone = Cluster(client, "here")
        results = gone.map(_square, range(100))
        assert next(results) == 0
        client.close()
        with pytest.raises(PatchknnError, match=said):
            list(results)
        with pytest.raises(PatchknnError, match=said):
            gone.engine(act).give(Unit("u", "ok"))
        with pytest.raises(PatchknnError, match=said):
            Cluster(client, "here").room  # noqa: B018


def test_a_worker_of_another_version_that_joins_later_ends_the_run(cluster, act, monkeypatch):
    from patchknn.jobs import cluster as module

    with pytest.raises(ConflictError, match=r"a worker has patchknn .*, and this is 0\.0\.1"):
        module._do(Unit("u", "ok"), act, "0.0.1")


def test_workers_that_come_are_given_units_before_the_first_are_done(act, tmp_path, monkeypatch):
    """One worker is kept busy until the unit that a second one must do is done."""
    from patchknn.jobs import cluster as module

    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "_KNOWN_SECONDS", 0.0)
    os.mkfifo(tmp_path / "fifo")
    options = {"processes": False, "dashboard_address": ":0", "threads_per_worker": 1}
    with (
        distributed.LocalCluster(n_workers=1, **options) as local,
        distributed.Client(local) as client,
    ):
        engine = Cluster(client, "here").engine(_write_or_read)
        units = [Unit("reader", str(tmp_path / "fifo")), *_units("ok", "ok")]
        outcomes = run_units([*units, Unit("writer", str(tmp_path / "fifo"))], engine)
        local.scale(2)
        done = {outcome.unit: outcome.detail for outcome in outcomes}
    assert done["reader"] == "it came"
    assert len(done) == 4


@pytest.mark.parametrize("by_units", [True, False])
def test_that_no_worker_is_left_is_said_once(act, monkeypatch, by_units):
    from patchknn.jobs import cluster as module

    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "_KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(module, "_ALONE_SECONDS", 0.0)
    options = {"processes": False, "dashboard_address": ":0", "threads_per_worker": 1}
    said = []
    with (
        distributed.LocalCluster(n_workers=0, **options) as local,
        distributed.Client(local) as client,
    ):

        def warn(text):
            said.append(text)
            local.scale(1)

        alone = Cluster(client, "here", warn)
        if by_units:
            assert len(list(run_units(_units("ok", "ok"), alone.engine(act)))) == 2
        else:
            assert list(alone.map(_square, range(3))) == [0, 1, 4]
    (sentence,) = said
    assert sentence.startswith("--dask here: no worker is left; waiting for new ones.")


def test_a_task_has_its_share_of_the_cpus(cluster):
    assert 1 <= cluster.cpus_of_a_worker <= len(os.sched_getaffinity(0))


def _write_or_read(unit):
    if unit.name == "writer":
        Path(unit.payload).write_text("it came")
    detail = Path(unit.payload).read_text() if unit.name == "reader" else ""
    return Outcome(unit.name, "done", detail)


def _square(number):
    return number**2


def _fails_at_three(number):
    if number == 3:
        message = "three is bad"
        raise InputError(message)
    return number


def _who(_item):
    return distributed.get_worker().address
