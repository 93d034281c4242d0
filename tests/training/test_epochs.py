"""Epochs of something small: what is saved when, and how it goes on."""

from __future__ import annotations

import csv
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from patchknn.errors import StoppedError
from patchknn.losses.terms import LossTerms
from patchknn.training import epochs as module
from patchknn.training.best import BestEpoch
from patchknn.training.checkpoint import CHECKPOINT_FILE
from patchknn.training.descent import Descent, Learnt, Wording
from patchknn.training.epochs import Epochs, Keeping
from patchknn.training.ranks import join_ranks


class _Settings:
    warmup, schedule, step_epochs, step_factor = 0.0, "step", 100, 1.0
    accumulate, clip_norm, last_epoch = 1, 0.0, 6


class _Learner:
    """Three batches an epoch move one weight down; ``told`` is what each step is."""

    counted = "pebbles"

    def __init__(self, ranks, stop_at=None):
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.network.weight, 10.0)
        groups = [{"params": [self.network.weight], "lr": 1.0, "base_lr": 1.0}]
        self.descent = Descent(
            self.network,
            torch.optim.SGD(groups),
            ranks,
            _Settings(),
            batches=3,
            precision="float32",
            wording=Wording("care"),
        )
        self._stop_at, self.memory = stop_at, 0

    def run_epoch(self, after_step):
        def between():
            if self.descent.done == self._stop_at:
                raise StoppedError
            after_step()

        batches = range(self.descent.position.step, 3)
        return self.descent.run_epoch(batches, self._learn, between)

    def judging(self):
        return nullcontext()

    def state(self):
        return {"extra": {"memory": torch.tensor(self.memory)}}, {"known": self.memory}

    def restore(self, groups, state):
        assert int(groups["extra"]["memory"]) == state["known"]
        self.memory = state["known"]

    def _learn(self, _batch):
        self.memory += 1
        return Learnt(LossTerms(self.descent.model(torch.ones(1, 1)).sum()), 5)


@pytest.fixture
def ranks():
    return join_ranks(torch.device("cpu"), "float32")


@pytest.fixture
def make(tmp_path, ranks):
    """Epochs judged by how far the weight is from ``goal``, and what they report."""

    def made(goal=-1e9, digest="run", within=1e9, between=0.0):
        lines = []
        keeping = Keeping(tmp_path / "m.partial", digest, within, between)

        def judge(row):
            return {**row, "distance": abs(learner_of[0].network.weight.item() - goal)}

        learner_of = []
        epochs = Epochs(
            keeping,
            ranks,
            BestEpoch("distance", less_is_better=True),
            judge,
            lines.append,
            named={"fold": "a"},
        )
        return epochs, learner_of, lines

    return made


def _run(make, ranks, patience=None, last=6, stop_at=None, **options):
    epochs, learner_of, lines = make(**options)
    learner = _Learner(ranks, stop_at)
    learner_of.append(learner)
    settled = epochs.run(learner, epochs.saved(), last, patience)
    return epochs, learner, lines, settled


def test_the_best_epoch_is_left_in_the_network(make, ranks, tmp_path):
    epochs, learner, lines, settled = _run(make, ranks, goal=3.0)
    assert (epochs.best.epoch, learner.network.weight.item()) == (2, 4.0)  # of 7, 4, 1, −2, …
    assert (lines, settled) == ([], False)
    rows = list(csv.DictReader((tmp_path / "m.partial" / "training.csv").open()))
    assert [row["epoch"] for row in rows] == list("123456")
    names = ["fold", "epoch", "loss", "train_seconds", "pebbles_per_second", "distance"]
    assert list(rows[0]) == names
    assert epochs.seconds > 0


def test_patience_ends_it_early(make, ranks):
    epochs, learner, _, settled = _run(make, ranks, goal=3.0, patience=2)
    assert settled
    assert [row["epoch"] for row in epochs.best.rows] == [1, 2, 3, 4]
    assert learner.network.weight.item() == 4.0


@pytest.mark.parametrize(
    ("patience", "steps"),
    [(None, 1), (None, 3), (None, 4), (None, 17), (2, 1), (2, 2), (2, 3), (2, 4), (2, 11)],
)
def test_one_that_was_stopped_goes_on_as_if_it_had_not_been(make, ranks, steps, patience):
    whole = _run(make, ranks, goal=3.0, patience=patience, digest="whole")[0].best
    with pytest.raises(StoppedError):
        _run(make, ranks, goal=3.0, patience=patience, stop_at=steps)
    epochs, learner, lines, _ = _run(make, ranks, goal=3.0, patience=patience)
    assert learner.memory == (12 if patience else 18)
    assert epochs.best.epoch == whole.epoch
    for ours, theirs in zip(epochs.best.rows, whole.rows, strict=True):
        kept = ("epoch", "loss", "distance")
        assert [ours[name] for name in kept] == [theirs[name] for name in kept]
    (line,) = lines
    epoch, step = divmod(steps - 1, 3)
    assert line.endswith(f"m.partial: epoch {epoch + 1}, {step + 1} of 3 batches done")


def test_one_that_is_done_is_only_read_again(make, ranks):
    _run(make, ranks, goal=3.0, between=1e9)  # saved at the end, though no time has gone by
    epochs, learner, lines, _ = _run(make, ranks, goal=3.0)
    assert learner.network.weight.item() == 4.0
    assert learner.memory == 18  # as it was then
    assert len(epochs.best.rows) == 6
    assert lines == []


def test_the_state_of_another_run_is_not_taken(make, ranks):
    _run(make, ranks, last=2)
    _, learner, (line,), _ = _run(make, ranks, digest="other")
    assert line.endswith("holds a run with other settings, data or precision: starting afresh.")
    assert learner.memory == 18


@pytest.mark.parametrize(
    ("within", "between", "expected"),
    [
        (1e9, 0.0, 2),  # after each epoch
        (1e9, 1e9, 1),  # at the end
        (-1.0, 1e9, 7),  # after each step, and at the end
    ],
)
def test_what_is_saved_when(make, ranks, monkeypatch, within, between, expected):  # noqa: PLR0917
    written = []
    write = module.write_checkpoint
    monkeypatch.setattr(
        module, "write_checkpoint", lambda *a: (written.append(a[1]["sums"]), write(*a))
    )
    _run(make, ranks, last=2, within=within, between=between)
    assert len(written) == expected
    _, learner, _, _ = _run(make, ranks, last=2)
    assert learner.memory == 6  # the last state is that of the end


def test_nothing_is_left_beside_the_state(make, ranks, tmp_path):
    _run(make, ranks)
    names = {path.name for path in (tmp_path / "m.partial").iterdir()}
    assert names == {CHECKPOINT_FILE, "training.csv"}
