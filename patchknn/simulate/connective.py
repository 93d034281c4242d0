"""Tissues between the glands: adipose tissue, smooth muscle and cancer-associated stroma."""

from __future__ import annotations

import numpy as np

from patchknn.simulate.canvas import Layer, Site, Stains
from patchknn.simulate.fibres import Flow
from patchknn.simulate.shapes import Nuclei, draw_nuclei, nearest_two

LYMPHOCYTE = Nuclei(6.5, 6, chromatin=1.7)


def adipose(site: Site) -> Stains:
    """Large empty vacuoles between thin membranes; a few flat nuclei pressed into corners."""
    spacing = float(site.rng.uniform(24, 34))
    first, second, _ = nearest_two(site, spacing, warp=1.5)
    thickness = site.pixels(float(site.rng.uniform(0.8, 1.3)))
    wall = np.exp(-np.square((second - first) / (thickness * 1.3)))
    # Where three vacuoles meet both distances are large: the wall thickens there.
    corner = np.clip((first - 0.5 * site.pixels(spacing)) / site.pixels(spacing * 0.14), 0, 1)
    wall = np.maximum(wall, corner * (0.6 + 0.2 * site.smooth_noise(5)))
    wall *= np.clip(0.85 + 0.35 * site.smooth_noise(9), 0.25, 1.3)
    nuclei = Layer(site)
    seeds = site.scatter(10)
    chosen = seeds[(site.at(wall, seeds) > 0.6) & (site.rng.random(len(seeds)) < 0.3)]
    draw_nuclei(site, nuclei, chosen, Nuclei(7, 3, chromatin=1.3))
    eosin = wall * float(site.rng.uniform(0.45, 0.8)) + 0.02
    return Stains(nuclei.amounts() + wall * np.float32(0.18), eosin.astype(np.float32))


def smooth_muscle(site: Site) -> Stains:
    """Compact parallel bundles with long thin nuclei along them."""
    flow = Flow(site, amplitude=1.5, wavelength=90, drift=2.5)
    level = float(site.rng.uniform(0.6, 0.9))
    eosin = level + 0.09 * flow.streaks(70, 1.6) + 0.08 * flow.streaks(140, 7)
    cleft = np.clip(flow.streaks(120, 9) - float(site.rng.uniform(1.0, 2.4)), 0, 1)
    eosin = np.clip(eosin, 0.2, None) * (1 - 0.8 * cleft)
    nuclei = Layer(site)
    centres = site.scatter(float(site.rng.uniform(12, 18)))
    look = Nuclei(17, 2.9, size_spread=0.18, chromatin=1.2, chromatin_spread=0.2)
    draw_nuclei(site, nuclei, centres, look, flow.direction(centres))
    amounts = nuclei.amounts(0.9)
    haematoxylin = 0.14 + 0.03 * flow.streaks(40, 3) + amounts
    return Stains(haematoxylin.astype(np.float32), (eosin - 0.15 * amounts).astype(np.float32))


def stroma(site: Site, *, lymphocytes: bool = True) -> Stains:
    """Loose wavy collagen with gaps, plump fibroblasts and single ``lymphocytes``, if wanted."""
    flow = Flow(site, amplitude=4, wavelength=float(site.rng.uniform(30, 50)), drift=9)
    strands = Layer(site)
    flow.strands(strands, spacing=7.5, length=55, fill=0.5, width=max(int(site.pixels(1.6)), 1))
    flow.strands(strands, spacing=11, length=45, fill=0.85, width=max(int(site.pixels(1.1)), 1))
    collagen = strands.amounts(0.6)
    gap = np.clip(flow.streaks(26, 7) * 0.8 - float(site.rng.uniform(0.4, 1.4)), 0, 1)
    ground = float(site.rng.uniform(0.2, 0.5))
    eosin = (ground + 0.06 * site.smooth_noise(2.5, 2) + 0.85 * collagen) * (1 - 0.9 * gap)
    nuclei = Layer(site)
    centres = site.scatter(float(site.rng.uniform(12, 20)))
    turn = flow.direction(centres) + site.rng.normal(0, 0.35, len(centres))
    look = Nuclei(11, 4.6, size_spread=0.2, chromatin=0.95, rim=1.3, chromatin_spread=0.25)
    draw_nuclei(site, nuclei, centres, look, turn.astype(np.float32))
    if lymphocytes:
        draw_nuclei(site, nuclei, site.scatter(float(site.rng.uniform(18, 40))), LYMPHOCYTE)
    amounts = nuclei.amounts()
    haematoxylin = 0.10 + 0.12 * collagen + amounts
    return Stains(haematoxylin.astype(np.float32), np.clip(eosin - 0.1 * amounts, 0.01, None))
