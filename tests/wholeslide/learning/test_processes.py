"""Several processes train a slide model as one does: the same batches, the same loss."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from patchknn.wholeslide.learning.slide_model import load_slide_model

_SMALL = (
    *("--folds", "2", "--epochs", "2", "--hidden", "8", "--dropout", "0", "--bootstrap", "20"),
    *("--device", "cpu", "--format", "ndjson"),
)


def _weights(folder):
    return load_slide_model(folder).network.state_dict()


def _rows(folder, name):
    return list(csv.DictReader((folder / name).open()))


@pytest.mark.parametrize(
    "asked",
    [
        ("--model", "cnn", "--batch-size", "5", "--accumulate", "2"),
        ("--model", "mil", "--batch-size", "1"),  # one process has none
        ("--model", "max", "--time", "time", "--event", "event"),  # risk sets span processes
    ],
    ids=" ".join,
)
def test_two_processes_have_the_loss_of_one(launch, make_cohort, tmp_path, asked):
    table = make_cohort(slides=16)
    line = ("slide", "train", table.parent, table, *_SMALL, *asked, "-o")
    one = launch(tmp_path, *line, "one", processes=1)
    assert one.returncode == 0, one.stderr
    two = launch(tmp_path, *line, "two")
    assert two.returncode == 0, two.stderr
    (told,) = two.stdout.splitlines()  # the first process alone speaks
    assert json.loads(told)["slide_model"] == "two"
    assert two.stderr.count("fold 1: ") == 1
    assert "arning" not in two.stderr
    alone, together = (_rows(tmp_path / name, "training.csv") for name in ("one", "two"))
    losses = [float(row["loss"]) for row in alone]
    assert [float(row["loss"]) for row in together] == pytest.approx(losses, rel=1e-4)
    ours, theirs = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=2e-4, msg=name)
    alone, together = (_rows(tmp_path / name, "predictions.csv") for name in ("one", "two"))
    assert [row["slide"] for row in together] == [row["slide"] for row in alone]
    assert load_slide_model(tmp_path / "two").training["processes"] == 2


_STOPPED = """
import os
import signal
import sys
from patchknn.wholeslide.learning import network_run

learn, taken = network_run.NetworkRun._learn, []

def some(self, batch):
    taken.append(batch)
    if os.environ["RANK"] == "1" and len(taken) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return learn(self, batch)

network_run.NetworkRun._learn = some
from patchknn.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_one_that_is_stopped_stops_all_and_all_go_on(launch, make_cohort, tmp_path):
    table = make_cohort(slides=16)
    line = ("slide", "train", table.parent, table, *_SMALL, "--dropout", "0.5", "-o")
    whole = launch(tmp_path, *line, "whole")
    assert whole.returncode == 0, whole.stderr
    (tmp_path / "run.py").write_text(_STOPPED)
    stopped = launch(tmp_path, *line, "model", program=("run.py",))
    assert stopped.returncode != 0
    assert "what was trained is kept" in stopped.stderr
    assert (tmp_path / "model.partial").is_dir()
    assert not (tmp_path / "model").exists()
    again = launch(tmp_path, *line, "model")
    assert again.returncode == 0, again.stderr
    assert "going on from model.partial" in again.stderr
    ours, theirs = _weights(tmp_path / "whole"), _weights(tmp_path / "model")
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-5, msg=name)
    third = launch(tmp_path, *line, "model")
    assert json.loads(third.stdout)["skipped"]


_SLOW = """
import sys
import time
from patchknn.cli import slide_train

show = slide_train._show

def slowly(*arguments):
    time.sleep(2)
    show(*arguments)

slide_train._show = slowly
from patchknn.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_what_the_first_process_prints_is_not_cut_off_by_the_exit_of_others(
    launch, make_cohort, tmp_path
):
    table = make_cohort(slides=12)
    more = tmp_path / "more.csv"
    more.write_text(table.read_text() + "nobody,P,negative,1,1,1\n")
    line = ("slide", "train", table.parent, more, *_SMALL, "--folds", "0", "--epochs", "1", "-o")
    (tmp_path / "run.py").write_text(_SLOW)
    both = launch(tmp_path, *line, "model", program=("run.py",))
    assert "nobody has no grid" in both.stderr
    assert json.loads(both.stdout.splitlines()[-1])["slide_model"] == "model"
