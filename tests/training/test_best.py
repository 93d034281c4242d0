"""The best epoch, its weights, and how long none has been better."""

from __future__ import annotations

import torch
from torch import nn

from patchknn.training.best import BestEpoch


def _run(scores):
    best, network = BestEpoch("score"), nn.Linear(1, 1)
    for epoch, score in enumerate(scores, start=1):
        nn.init.constant_(network.weight, epoch)
        best.note({"epoch": epoch} | ({} if score is None else {"score": score}), network)
    return best, network


def test_of_equals_the_later_is_kept_and_patience_counts_from_the_first():
    best, network = _run([0.1, 0.7, 0.7, 0.4])
    assert (best.epoch, best.reached, best.waited) == (3, 2, 2)
    assert best.row == {"epoch": 3, "score": 0.7}
    best.load_into(network)
    assert network.weight.item() == 3


def test_without_a_score_the_last_is_kept():
    best, _ = _run([None, None])
    assert (best.epoch, best.reached, best.waited) == (2, None, 0)


def test_a_restored_one_goes_on():
    best, network = _run([0.2, 0.9, 0.3])
    other = BestEpoch("score")
    other.restore(best.weights, best.rows, best.epoch)
    other.note({"epoch": 4, "score": 0.1}, network)
    assert (other.epoch, other.waited) == (2, 2)
    torch.testing.assert_close(other.weights["weight"], torch.full((1, 1), 2.0))


def test_before_the_first_there_is_nothing():
    best, network = BestEpoch("score"), nn.Linear(1, 1)
    before = network.weight.item()
    best.load_into(network)
    assert best.row == {}
    assert network.weight.item() == before


def test_of_a_loss_the_least_is_best():
    best = BestEpoch("loss", less_is_better=True)
    for epoch, loss in enumerate([0.9, 0.4, 0.6], start=1):
        best.note({"epoch": epoch, "loss": loss}, nn.Linear(1, 1))
    assert (best.epoch, best.waited) == (2, 1)
