"""Several processes train as one does: the same batches, the same loss, the same bundle."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from patchknn.bundle import load_backbone, load_bundle
from patchknn.errors import UsageError
from patchknn.training.ranks import _as_torchrun, _started_with, join_ranks

_LINE = ("train", "pictures", "--format", "ndjson", "-o")
_SMALL = (
    *("--backbone", "test_resnet", "--size", "32", "--bits", "16", "--epochs", "2"),
    *("--per-class", "5", "--workers", "0", "--device", "cpu", "--freeze-batch-norm", "yes"),
)


def _clean_environment(**more):
    started = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "SLURM_", "TORCHELASTIC")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(started)}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def _srun(folder, *arguments):
    """Two processes with the variables that Slurm gives the tasks of a step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "7"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "patchknn", *arguments],
            cwd=folder,
            env=_clean_environment(
                **common,
                SLURM_PROCID=str(rank),
                SLURM_LOCALID=str(rank),
                SLURM_NODEID="0",
                SLURM_STEP_NODELIST="127.0.0.1",
                MASTER_PORT=str(port),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outcomes = [process.communicate(timeout=280) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    return outcomes


_UNREADABLE = """
import os
import sys
from pathlib import Path
from patchknn.datasets.patches import Patch
from patchknn.errors import InputError
from patchknn.training.fit import train_encoder
from patchknn.training.settings import TrainingSettings

files = sorted(Path("pictures").glob("*/*.png"))
patches = [Patch(f"{f.parent.name}/{f.name}", f, "image", label=f.parent.name) for f in files]
settings = TrainingSettings(
    "test_resnet", size=32, bits=16, epochs=2, per_class=4, workers=0, device="cpu",
    loss=sys.argv[1], max_bad=sys.argv[2], cache_bytes=0,
)
try:
    found = train_encoder(patches, settings, Path("encoder"), str).problems
    told = " ".join(sorted(problem.name for problem in found))
except InputError as error:
    told = f"ended: {error}"
Path("told-" + os.environ["RANK"]).write_text(told)  # what two print may come interleaved
"""


@pytest.mark.parametrize("loss", ["multitask", "deep-knn"])
def test_what_one_process_cannot_read_all_leave_out(launch, picture_folder, tmp_path, loss):
    folder = picture_folder(per_class=12)
    bad = [f"{label}/{number:03}.png" for label in ("blobs", "stripes") for number in (1, 4, 6)]
    for name in bad:
        (folder / name).write_bytes(b"")
    (tmp_path / "run.py").write_text(_UNREADABLE)
    together = launch(tmp_path, loss, "6", program=("run.py",))
    assert together.returncode == 0, together.stderr
    told = [(tmp_path / f"told-{rank}").read_text() for rank in range(2)]
    assert told == [" ".join(bad)] * 2
    assert load_bundle(tmp_path / "encoder").description.training["unreadable_images"] == 6


def test_too_many_that_cannot_be_read_end_all_processes_with_one_count(
    launch, picture_folder, tmp_path
):
    folder = picture_folder(per_class=12)
    for number in range(12):
        (folder / "blobs" / f"{number:03}.png").write_bytes(b"")  # all in the first one's share
    (tmp_path / "run.py").write_text(_UNREADABLE)
    together = launch(tmp_path, "deep-knn", "2", program=("run.py",))
    assert together.returncode == 0, together.stderr
    (ended,) = {(tmp_path / f"told-{rank}").read_text() for rank in range(2)}
    assert ended.startswith("ended: ")
    assert "--max-bad allows (2)" in ended


_NOTED = """
import hashlib
import os
from pathlib import Path
from patchknn.datasets.patches import Patch
from patchknn.training import judging
from patchknn.training.fit import train_encoder
from patchknn.training.settings import TrainingSettings

seen = []
hash_codes = judging.hash_codes

def noted(network, features):
    backbone = network.backbone.state_dict().values()
    seen.append(hashlib.sha256(b"".join(v.numpy().tobytes() for v in backbone)).hexdigest())
    return hash_codes(network, features)

judging.hash_codes = noted
files = sorted(Path("pictures").glob("*/*.png"))
patches = [Patch(f"{f.parent.name}/{f.name}", f, "image", label=f.parent.name) for f in files]
settings = TrainingSettings(
    "test_resnet", size=32, bits=16, epochs=2, per_class=4, workers=0, device="cpu",
    loss="deep-knn", ema=0.5,
)
train_encoder(patches, settings, Path("encoder"), str)
Path("told-" + os.environ["RANK"]).write_text(" ".join(seen))
"""


_ELSEWHERE = """
import os
import sys
from patchknn.training import epochs, fit

fit.run_digest = lambda *_: "this run"
state = {"digest": "this run", "epoch": 2, "step": 0}
# As on a node with a disk of its own.
epochs.read_checkpoint = lambda _: ({}, state) if os.environ["RANK"] == "0" else None
from patchknn.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_state_that_not_all_processes_see_is_an_error(launch, picture_folder, tmp_path):
    picture_folder(per_class=8)
    (tmp_path / "run.py").write_text(_ELSEWHERE)
    together = launch(tmp_path, *_LINE, "encoder", *_SMALL, program=("run.py",))
    assert together.returncode == 1
    assert "do not see the same encoder.partial" in together.stderr


def test_all_processes_are_judged_by_the_batch_norm_that_is_saved(launch, picture_folder, tmp_path):
    picture_folder(per_class=12)
    (tmp_path / "run.py").write_text(_NOTED)
    together = launch(tmp_path, program=("run.py",))
    assert together.returncode == 0, together.stderr
    first, second = ((tmp_path / f"told-{rank}").read_text().split() for rank in range(2))
    assert len(first) >= 4
    assert first == second


def test_a_process_may_have_one_image_of_a_batch(launch, picture_folder, tmp_path):
    picture_folder(per_class=5)
    line = (*_SMALL, "--freeze-batch-norm", "no", "--loss", "cross-entropy", "--epochs", "1")
    small = ("--classes-per-batch", "1", "--per-class", "3")
    together = launch(tmp_path, *_LINE, "encoder", *line, *small)
    assert together.returncode == 0, together.stderr


def _log(encoder):
    with (encoder / "training.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "loss", [("multitask",), ("deep-knn", "--bank", "2"), ("deep-knn", "--w-ce", "1")], ids=" ".join
)
def test_two_processes_under_torchrun_have_the_loss_of_one(launch, picture_folder, tmp_path, loss):
    picture_folder(per_class=15)
    line = (*_SMALL, "--loss", *loss)
    one = launch(tmp_path, *_LINE, "one", *line, processes=1)
    assert one.returncode == 0, one.stderr
    two = launch(tmp_path, *_LINE, "two", *line)
    assert two.returncode == 0, two.stderr
    assert len(two.stdout.splitlines()) == 1  # the first process alone speaks
    assert json.loads(two.stdout)["encoder"] == "two"
    assert two.stderr.count("epoch 1/2") == 1
    alone, together = _log(tmp_path / "one"), _log(tmp_path / "two")
    names = [
        name
        for name in alone[0]
        if name in {"loss", "triplet", "cauchy", "deep_knn", "cross_entropy"}
    ]
    assert names
    for name in names:
        expected = [float(row[name]) for row in alone]
        assert [float(row[name]) for row in together] == pytest.approx(expected, rel=1e-5), name
    ours, theirs = (load_backbone(load_bundle(tmp_path / name)) for name in ("one", "two"))
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=0, atol=2e-4, err_msg=name)
    assert load_bundle(tmp_path / "two").description.training["processes"] == 2


def test_the_tasks_of_a_slurm_step_train_together(picture_folder, tmp_path):
    picture_folder(per_class=8)
    (out, _), (silent, _) = _srun(tmp_path, *_LINE, "encoder", *_SMALL, "--epochs", "1")
    assert json.loads(out)["encoder"] == "encoder"
    assert silent == ""
    assert load_bundle(tmp_path / "encoder").description.training["processes"] == 2


def test_a_batch_script_that_starts_one_process_waits_for_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert _started_with() == (1, 1)


def test_tasks_of_two_steps_of_one_job_meet_at_different_ports(monkeypatch):
    for name, value in {
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
        "SLURM_JOB_ID": "4242",
        "SLURM_STEP_NODELIST": "node[07-08]",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    first = _as_torchrun(2, 2)
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    second = _as_torchrun(2, 2)
    assert first["MASTER_ADDR"] == "node07"
    assert (first["RANK"], first["LOCAL_RANK"], first["WORLD_SIZE"]) == ("3", "1", "4")
    assert first["MASTER_PORT"] != second["MASTER_PORT"]


def test_a_device_that_cannot_train_is_refused():
    with pytest.raises(UsageError, match="--device mps"):
        join_ranks(torch.device("mps"), "float32")
