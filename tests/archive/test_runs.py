"""Run records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.runs import describe_run, new_run_id, read_run, write_run
from patchknn.archive.verify import verify_archive
from patchknn.errors import InputError


def test_a_record_survives_and_may_be_replaced(empty, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    settings = {"size": 224, "encoder": Path("enc"), "tags": {"b", "a"}, "n": np.int64(3)}
    record = describe_run(["patchknn", "embed"], settings, seed=5)
    run_id = new_run_id()
    write_run(empty, run_id, record)
    write_run(empty, run_id, {**record, "counts": {"done": 2}, "failures": [{"name": "x"}]})
    stored = read_run(empty, run_id)
    assert stored["settings"] == {"size": 224, "encoder": "enc", "tags": ["a", "b"], "n": 3}
    assert stored["slurm"]["SLURM_ARRAY_TASK_ID"] == "7"
    assert (stored["seed"], stored["counts"]) == (5, {"done": 2})
    assert {"patchknn", "python", "numpy", "torch"} <= set(stored["versions"])
    assert verify_archive(empty) == []


def test_ids_differ_and_cannot_leave_the_folder(empty):
    assert len({new_run_id() for _ in range(20)}) == 20
    with pytest.raises(InputError, match="no run id"):
        write_run(empty, "../x", {})
    assert read_run(empty, "../archive") is None
    assert read_run(empty, "absent") is None


def test_a_damaged_record_is_found_and_harmless(empty):
    (empty / "runs" / "r1.json").write_text("{")
    assert read_run(empty, "r1") is None
    (finding,) = verify_archive(empty)
    assert finding.file == "runs/r1.json"
