"""The processors that one may use, not those that the machine has."""

from __future__ import annotations

import os

import pytest

from patchknn.jobs.cpus import available_cpus, reader_processes


@pytest.mark.parametrize(
    ("granted", "allowed", "expected"),
    [("", 3, 3), ("2", 8, 2), ("16", 4, 4), ("0", 4, 1), ("many", 4, 4)],
)
def test_slurm_and_affinity_both_limit(monkeypatch, granted, allowed, expected):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    assert available_cpus() == expected


def test_the_processes_of_a_torchrun_share_what_the_node_has(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert available_cpus() == 16  # a variable left over from elsewhere
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert available_cpus() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert available_cpus() == 1


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cpu", 3), (None, "cuda", 8), (0, "cpu", 0), (5, "cuda", 5)],
)
def test_readers_leave_an_encoder_on_cpus_most_of_these(monkeypatch, asked, device, expected):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert reader_processes(asked, device) == expected
