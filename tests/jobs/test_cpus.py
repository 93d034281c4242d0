"""The processors that one may use, not those that the machine has."""

from __future__ import annotations

import os

import pytest

from patchknn.jobs.cpus import available_cpus


@pytest.mark.parametrize(
    ("granted", "allowed", "expected"),
    [("", 3, 3), ("2", 8, 2), ("16", 4, 4), ("0", 4, 1), ("many", 4, 4)],
)
def test_slurm_and_affinity_both_limit(monkeypatch, granted, allowed, expected):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    assert available_cpus() == expected
