"""The steps of a run against a literal loop."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from patchknn.errors import PatchknnError
from patchknn.losses.terms import LossTerms
from patchknn.training.descent import Descent, Learnt, Position, Wording
from patchknn.training.ranks import join_ranks


@dataclasses.dataclass(frozen=True)
class _Settings:
    warmup: float = 0.25
    schedule: str = "cosine"
    step_epochs: int = 1
    step_factor: float = 0.5
    accumulate: int = 1
    clip_norm: float = 0.5
    last_epoch: int = 2


_BATCHES = 5


def _network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def _data():
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(7, 5, generator=generator) for _ in range(_BATCHES)]


def _squares(model, batch):
    return (model(batch[:, :4])[:, 0] - batch[:, 4]).square().mean()


def _descent(network, settings):
    groups = [{"params": list(network.parameters()), "lr": 0.1, "base_lr": 0.1}]
    return Descent(
        network,
        torch.optim.SGD(groups),
        join_ranks(torch.device("cpu"), "float32"),
        settings,
        batches=_BATCHES,
        precision="float32",
        wording=Wording("a lower --lr", "fold 2"),
    )


def _learn(descent):
    def learn(batch):
        loss = _squares(descent.model, batch)
        return Learnt(LossTerms(loss, {"part": 2 * loss.detach()}), len(batch))

    return learn


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_two_epochs_are_those_of_a_literal_loop(accumulate):
    settings = _Settings(accumulate=accumulate)
    literal, steps, means = _network(), 0, []
    for epoch in range(2):
        losses = []
        starts = range(0, _BATCHES, accumulate)
        for start in starts:
            group = _data()[start : start + accumulate]
            done, total = epoch * _BATCHES + start + len(group) - 1, 2 * _BATCHES
            rising = round(0.25 * total)
            if done < rising:
                factor = (done + 1) / (rising + 1)
            else:
                share = (done - rising) / (total - rising)
                factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
            values = [_squares(literal, batch) for batch in group]
            literal.zero_grad()
            (sum(values) / len(group)).backward()
            gradient = torch.cat([p.grad.flatten() for p in literal.parameters()])
            shrink = min(1.0, 0.5 / (gradient.norm().item() + 1e-6))
            with torch.no_grad():
                for parameter in literal.parameters():
                    parameter.sub_(0.1 * factor * shrink * parameter.grad)
            losses += [value.item() for value in values]
            steps += 1
        means.append(sum(losses) / len(losses))
    network, descended, between = _network(), [], []
    descent = _descent(network, settings)
    descent.after_descent = lambda: descended.append(1)
    found = []
    for epoch in (1, 2):
        descent.position = Position(epoch=epoch)
        found.append(descent.run_epoch(_data(), _learn(descent), lambda: between.append(1)))
        assert descent.position.seen == 7 * _BATCHES
    assert [row["loss"] for row in found] == pytest.approx(means, rel=1e-5)
    assert [row["part"] for row in found] == pytest.approx([2 * mean for mean in means], rel=1e-5)
    assert len(descended) == len(between) == steps
    for ours, theirs in zip(network.parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_an_epoch_taken_up_again_has_the_means_of_the_whole():
    whole = _descent(_network(), _Settings())
    expected = whole.run_epoch(_data(), _learn(whole), list)
    descent = _descent(_network(), _Settings())
    descent.run_epoch(_data()[:2], _learn(descent), list)
    assert descent.position.step == 2
    assert descent.run_epoch(_data()[2:], _learn(descent), list) == expected


def test_a_batch_of_which_nothing_is_left_is_passed_over():
    descent = _descent(_network(), _Settings())
    learn = _learn(descent)
    means = descent.run_epoch(
        _data(), lambda batch: learn(batch) if descent.position.step % 2 else None, list
    )
    assert descent.position.step == _BATCHES
    assert descent.position.seen == 14
    assert math.isfinite(means["loss"])


def test_a_loss_that_is_no_number_ends_it_before_it_is_learnt_from():
    network = _network()
    descent = _descent(network, _Settings())
    learn = _learn(descent)
    before = []

    def broken(batch):
        learnt = learn(batch)
        if descent.position.step < 2:
            return learnt
        before.extend(p.detach().clone() for p in network.parameters())
        return Learnt(LossTerms(learnt.terms.total * torch.nan), len(batch))

    told = r"epoch 1, step 3 of 5 of fold 2; the last good state is kept: train again with a lower"
    with pytest.raises(PatchknnError, match=told):
        descent.run_epoch(_data(), broken, list)
    for parameter, known in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, known, rtol=0, atol=0)
