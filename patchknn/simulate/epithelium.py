"""Tissues made of cells: lymphocytes, normal colon mucosa and tumour epithelium."""

from __future__ import annotations

import numpy as np

from patchknn.simulate.canvas import Floats, Layer, Site, Stains
from patchknn.simulate.shapes import Nuclei, draw_nuclei, nearest_two, ragged_ellipses


def lymphocytes(site: Site) -> Stains:
    """Small round dark nuclei of one size, close together, with hardly any cytoplasm."""
    nuclei = Layer(site)
    centres = site.scatter(float(site.rng.uniform(7.0, 10.5)), jitter=0.3)
    thin = site.smooth_noise(40)
    centres = centres[site.at(thin, centres) > -2.6]
    look = Nuclei(6.4, 5.7, size_spread=0.1, chromatin=1.75, chromatin_spread=0.16)
    draw_nuclei(site, nuclei, centres, look)
    grain = 1 + 0.1 * site.smooth_noise(1.2)
    amounts = nuclei.amounts() * grain
    ground = float(site.rng.uniform(0.15, 0.6)) + 0.12 * site.smooth_noise(6, 2)
    return Stains((0.12 + amounts).astype(np.float32), np.clip(ground, 0.03, None))


def normal_mucosa(site: Site) -> Stains:
    """Round crypts: lumen, a ring of goblet vacuoles, regular basal nuclei; stroma between."""
    spacing = float(site.rng.uniform(46, 54))
    first, second, _ = nearest_two(site, spacing, warp=2.5)
    # 0 at a crypt's middle, 1 at its basement membrane, more in the stroma between crypts.
    depth = first / np.minimum(site.pixels(spacing * 0.44), (first + second) * 0.45)
    inside = _step(1 - depth, 0.03)
    lumen = _step(0.24 - depth, 0.03)
    level = float(site.rng.uniform(0.35, 0.7))
    eosin = level * np.where(depth < 1, np.float32(1), np.float32(0.75)) + 0.07 * site.smooth_noise(
        2, 2
    )
    haematoxylin = 0.2 * inside + 0.08

    vacuoles = Layer(site)
    places = site.scatter(7.6, jitter=0.2)
    places = places[(np.abs(site.at(depth, places) - 0.56) < 0.24)]
    places = places[site.rng.random(len(places)) < float(site.rng.uniform(0.45, 1.0))]
    size = np.full(len(places), site.pixels(9), np.float32)
    size *= np.exp(site.rng.normal(0, 0.12, len(places))).astype(np.float32)
    turn = site.rng.uniform(0, np.pi, len(places)).astype(np.float32)
    for outline in ragged_ellipses(site, places, (size, size * 0.85), turn, 0.03):
        vacuoles.polygon(outline.ravel().tolist(), 1.0)
    hollow = np.maximum(vacuoles.amounts(0.8), lumen)
    eosin = eosin * (1 - 0.88 * hollow)
    haematoxylin = haematoxylin * (1 - hollow) + hollow * (0.12 + 0.04 * site.smooth_noise(1.5))

    nuclei = Layer(site)
    basal = site.scatter(3.6, jitter=0.2)
    height = site.at(depth, basal)
    basal = basal[np.abs(height - 0.93) < 0.06]
    look = Nuclei(6.2, 3.8, size_spread=0.08, chromatin=1.35, rim=1.5)
    around = _outward(site, first, basal) + np.float32(np.pi / 2)
    draw_nuclei(site, nuclei, basal, look, around)
    guests = site.scatter(float(site.rng.uniform(9, 14)))
    guests = guests[site.at(depth, guests) > 1.1]
    draw_nuclei(site, nuclei, guests, Nuclei(6.2, 5.2, size_spread=0.15, chromatin=1.5))
    haematoxylin = haematoxylin + nuclei.amounts()
    return Stains(haematoxylin.astype(np.float32), np.clip(eosin, 0.01, None))


def tumour(site: Site) -> Stains:
    """Crowded cells with large, uneven, vesicular nuclei and nucleoli; slit-like lumens."""
    field = site.smooth_noise(30, 2)
    limit = float(site.rng.uniform(1.5, 2.6))
    opening = _step(field - limit, 0.08)
    first, second, own = nearest_two(site, float(site.rng.uniform(11.5, 14)), warp=2)
    border = np.exp(-np.square((second - first) / site.pixels(0.9)))
    level = float(site.rng.uniform(0.3, 0.65))
    eosin = (level + 0.16 * own + 0.06 * site.smooth_noise(2, 2)) * (1 - 0.35 * border)
    haematoxylin = float(site.rng.uniform(0.12, 0.35)) + 0.1 * site.smooth_noise(14)
    nuclei = Layer(site)
    centres = site.scatter(float(site.rng.uniform(10, 14)), jitter=0.4)
    centres = centres[site.at(field, centres) < limit - 0.2]
    look = Nuclei(
        11.5,
        8.2,
        size_spread=0.28,
        raggedness=0.06,
        chromatin=0.85,
        rim=1.6,
        chromatin_spread=0.3,
        nucleoli=0.6,
    )
    draw_nuclei(site, nuclei, centres, look)
    grain = np.clip(1 + 0.22 * site.smooth_noise(1.3), 0.4, None)
    haematoxylin = (haematoxylin + nuclei.amounts(0.6) * grain) * (1 - 0.93 * opening)
    eosin = eosin * (1 - 0.93 * opening)
    return Stains(np.clip(haematoxylin, 0.02, None), np.clip(eosin, 0.01, None))


def _step(values: Floats, softness: float) -> Floats:
    """0 below zero, 1 above, with a soft edge."""
    risen: Floats = np.clip(values / np.float32(softness) + np.float32(0.5), 0, 1)
    return risen


def _outward(site: Site, distance: Floats, points: Floats) -> Floats:
    """The angle (n,) in which a distance grows at points (n, 2)."""
    step = np.float32(3)
    right = site.at(distance, points + np.array([step, 0], np.float32))
    left = site.at(distance, points - np.array([step, 0], np.float32))
    below = site.at(distance, points + np.array([0, step], np.float32))
    above = site.at(distance, points - np.array([0, step], np.float32))
    angle: Floats = np.arctan2(below - above, right - left)
    return angle
