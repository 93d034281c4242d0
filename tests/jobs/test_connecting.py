"""A Dask cluster is found, or it is said what is wrong with where it was looked for."""

from __future__ import annotations

import sys

import pytest

from patchknn.errors import ConflictError, InputError, UsageError
from patchknn.jobs import connecting
from patchknn.jobs.connecting import connected

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    options = {"processes": False, "dashboard_address": ":0", "n_workers": 1}
    with distributed.Client(threads_per_worker=1, **options) as client:
        yield client


def test_nobody_there(monkeypatch, tmp_path):
    monkeypatch.setattr(connecting, "_CONNECT_SECONDS", 1)
    with (
        pytest.raises(InputError, match="no Dask scheduler answers there"),
        connected("tcp://127.0.0.1:9"),
    ):
        pass
    (tmp_path / "file.json").write_text("{}")
    with (
        pytest.raises(InputError, match="not the file of a Dask scheduler"),
        connected(str(tmp_path / "file.json")),
    ):
        pass


def test_a_scheduler_without_workers_is_waited_for_and_said(monkeypatch):
    monkeypatch.setattr(connecting, "_WORKER_SECONDS", 0.1)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty,
        pytest.raises(InputError, match="the scheduler has no worker"),
        connected(empty.scheduler_address),
    ):
        pass


@pytest.mark.parametrize("count", ["0", "many", "", "-1"])
def test_a_number_of_processes_is_a_number(count):
    with (
        pytest.raises(UsageError, match="takes a number of processes"),
        connected(f"local:{count}"),
    ):
        pass


def test_workers_of_another_version_are_refused(client, monkeypatch):
    monkeypatch.setattr(connecting, "_version", _other_version)
    with pytest.raises(ConflictError, match=r"workers have patchknn 0\.0\.1"):
        connecting._await_workers(client, "here")


def test_workers_without_patchknn_are_refused(client, monkeypatch):
    monkeypatch.setattr(connecting, "_version", _not_installed)
    with pytest.raises(ConflictError, match="patchknn cannot be imported where the workers run"):
        connecting._await_workers(client, "here")


def test_without_dask_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'patchknn\[dask\]'"), connected("local:2"):
        pass


def _not_installed():
    import no_such_module  # noqa: F401


def _other_version():
    return "0.0.1"
