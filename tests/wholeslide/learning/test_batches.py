"""Grids as batches: nothing of the tissue is lost, moved apart or made up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchknn.wholeslide.grids.grid import GridInfo, open_grid, turn, write_grid
from patchknn.wholeslide.learning.batches import most_places, training_batch, whole


@pytest.fixture
def grid(tmp_path):
    """Every place holds its own number, and the number of its orientation."""
    mask = np.zeros((9, 12), bool)
    mask[2:8, 3:7] = True
    mask[4, 10] = True
    numbers = np.arange(108.0).reshape(9, 12)
    features = np.stack([np.stack([numbers, np.full_like(numbers, a)]) for a in range(8)])
    info = GridInfo("s", 8, 8, 0.5, 0.5, 8.0, (96, 72), "e")
    write_grid(tmp_path / "s.h5", info, features, mask)
    return open_grid(tmp_path / "s.h5")


def test_whole_is_the_part_with_tissue(grid):
    features, mask = whole(grid)
    assert features.shape == (1, 2, 6, 8)
    np.testing.assert_array_equal(mask[0], grid.mask[2:8, 3:11])
    np.testing.assert_array_equal(features[0], grid.features[0][:, 2:8, 3:11])


def test_turned_slides_are_those_that_the_grid_gives(grid):
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        features, mask = training_batch([grid], 100, rng, turned=True)
        (entry,) = features[0, 1][mask[0]].unique().tolist()
        seen.add(entry)
        rows, columns = (np.flatnonzero(mask[0].any(dim=d).numpy()) for d in (1, 0))
        part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        expected = turn(grid.features[int(entry)][:, 2:8, 3:11], int(entry))
        np.testing.assert_array_equal(features[0][(slice(None), *part)], expected)
        assert features[0, :, ~mask[0]].eq(0).all()
    assert seen == set(range(8))


def test_windows_hold_tissue_and_reach_every_place(grid):
    seen = torch.zeros(108, dtype=torch.bool)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        features, mask = training_batch([grid], 3, rng, turned=False)
        rows, columns = (np.flatnonzero(mask[0].any(dim=d).numpy()) for d in (1, 0))
        assert np.ptp(rows) < 3
        assert np.ptp(columns) < 3
        seen[features[0, 0][mask[0]].long()] = True
    assert seen.numpy()[grid.mask.ravel()].all()


def test_unlike_grids_are_padded_at_a_place_by_chance(grid, tmp_path):
    mask = np.ones((2, 3), bool)
    write_grid(tmp_path / "t.h5", grid.info, np.ones((1, 2, 2, 3)), mask)
    small = open_grid(tmp_path / "t.h5")
    places = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        features, masks = training_batch([grid, small], 100, rng, turned=False)
        assert masks.sum(dim=(1, 2)).tolist() == [grid.mask.sum(), 6]
        assert features[1].sum() == 12
        places.add(tuple(masks[1].nonzero()[0].tolist()))
    assert len(places) > 5


@pytest.mark.parametrize("turned", [False, True])
def test_parts_of_a_batch_are_together_what_the_whole_is(grid, tmp_path, turned):
    mask = np.ones((2, 3), bool)
    write_grid(tmp_path / "t.h5", grid.info, np.ones((1, 2, 2, 3)), mask)
    grids = [grid, open_grid(tmp_path / "t.h5"), grid]
    for seed in range(20):
        whole_batch = training_batch(grids, 5, np.random.default_rng(seed), turned=turned)
        parts = [
            training_batch(grids, 5, np.random.default_rng(seed), turned=turned, part=part)
            for part in (slice(0, 1), slice(1, 1), slice(1, 3))
        ]
        for number, expected in enumerate(whole_batch):
            torch.testing.assert_close(torch.cat([part[number] for part in parts]), expected)


@pytest.mark.parametrize("turned", [False, True])
def test_no_batch_has_more_places_than_are_reckoned_with(grid, tmp_path, turned):
    grids, window = [], 20
    for number, (height, width) in enumerate([(30, 2), (3, 17), (8, 8), (1, 1)]):
        path = tmp_path / f"{number}.h5"
        write_grid(path, grid.info, np.ones((1, 1, height, width)), np.ones((height, width), bool))
        grids.append(open_grid(path))
    most = most_places([one.mask.shape for one in grids], window, turned=turned)
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        _, masks = training_batch(grids, window, rng, turned=turned)
        found = max(found, masks[0].numel())
    assert 0.5 * most < found <= most
