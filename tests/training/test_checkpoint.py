"""The state of a run on disk: whole, exact, and without pickle."""

from __future__ import annotations

import pytest
import torch

from patchknn.errors import DamageError
from patchknn.training.checkpoint import (
    CHECKPOINT_FILE,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)


def test_tensors_and_state_come_back_bit_for_bit(tmp_path):
    shared = torch.randn(3, 4)
    groups = {"network": {"a.b": shared, "tied": shared}, "random": {"cpu": torch.get_rng_state()}}
    state = {"epoch": 3, "score": 0.1 + 0.2, "name": "ü"}
    write_checkpoint(tmp_path / "run.partial", groups, state)
    found, restored = read_checkpoint(tmp_path / "run.partial")
    assert restored == state
    for group, members in groups.items():
        for name, tensor in members.items():
            assert torch.equal(found[group][name], tensor)


def test_no_checkpoint_is_none_and_a_damaged_one_is_named(tmp_path):
    assert read_checkpoint(tmp_path) is None
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"\x10" * 40)
    with pytest.raises(DamageError, match=CHECKPOINT_FILE):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, momentum=0.9)])
def test_a_restored_optimiser_takes_the_same_steps(kind):
    def steps(weight, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    weight = torch.ones(3, requires_grad=True)
    optimizer = kind([weight])
    steps(weight, optimizer, 3)
    copy = weight.detach().clone().requires_grad_()
    other = kind([copy])
    remembered = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    restore_optimizer(other, remembered)
    steps(weight, optimizer, 2)
    steps(copy, other, 2)
    assert torch.equal(weight, copy)
