"""The tissues differ by what is drawn, which is counted or measured here without a network."""

import numpy as np
import pytest

from patchknn.simulate.canvas import Site
from patchknn.simulate.classes import CLASS_NAMES
from patchknn.simulate.fibres import Flow
from patchknn.simulate.shapes import nearest_two
from patchknn.simulate.slides import PAINTERS


def site(seed: int = 0, size: int = 256) -> Site:
    return Site(size, size, 0.5, np.random.default_rng(seed))


def coherence(field: np.ndarray) -> float:
    """How far one direction prevails in a picture, 0..1 (structure tensor over the whole)."""
    down, right = np.gradient(field.astype(float))
    xx, yy, xy = (right**2).mean(), (down**2).mean(), (right * down).mean()
    return float(np.hypot(xx - yy, 2 * xy) / (xx + yy))


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_class_paints_finite_amounts_of_both_stains(name: str) -> None:
    drawn = Site(131, 190, 0.5, np.random.default_rng(4))
    stains = PAINTERS[name](drawn)
    for amounts in (stains.haematoxylin, stains.eosin):
        assert amounts.shape == (131, 190)
        assert amounts.dtype == np.float32
        assert np.isfinite(amounts).all()
        assert amounts.min() > -0.2
        assert amounts.max() < 6


def test_smooth_muscle_has_one_direction_and_lymphocytes_none() -> None:
    muscle = [coherence(PAINTERS["MUS"](site(seed)).eosin) for seed in range(4)]
    nuclei = [coherence(PAINTERS["LYM"](site(seed)).haematoxylin) for seed in range(4)]
    assert min(muscle) > 0.6
    assert max(nuclei) < 0.2


def test_nuclei_cover_more_of_lymphocytes_than_of_muscle_than_of_fat() -> None:
    def covered(name: str) -> float:
        drawn = [PAINTERS[name](site(seed)).haematoxylin for seed in range(4)]
        return float(np.mean([(amounts > 0.65).mean() for amounts in drawn]))

    assert covered("LYM") > 1.5 * covered("MUS") > 3 * covered("ADI")
    assert covered("BACK") < 0.005


def test_fat_is_empty_but_for_its_membranes() -> None:
    stains = PAINTERS["ADI"](site())
    empty = (stains.eosin + stains.haematoxylin) < 0.15
    assert 0.5 < empty.mean() < 0.97


def test_nearest_two_agrees_with_cells_that_fill_the_plane() -> None:
    first, second, number = nearest_two(site(size=200), 20.0, warp=0.0)
    assert (first <= second).all()
    border = second - first < 1
    same_below = number[1:] == number[:-1]
    # A seed's number changes only where the two nearest seeds are equally far.
    assert (border[1:] | border[:-1] | same_below).mean() > 0.995


def test_fibres_run_where_the_flow_says() -> None:
    drawn = site(7)
    flow = Flow(drawn, amplitude=0.0, wavelength=80, drift=0.0)
    down, right = np.gradient(flow.streaks(80, 4).astype(float))
    xx, yy, xy = (right**2).mean(), (down**2).mean(), (right * down).mean()
    across = 0.5 * np.arctan2(2 * xy, xx - yy)
    difference = (across + np.pi / 2 - flow.angle + np.pi / 2) % np.pi - np.pi / 2
    assert abs(np.degrees(difference)) < 6
