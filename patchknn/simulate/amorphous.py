"""What is not living tissue: glass background, debris and mucus."""

from __future__ import annotations

import numpy as np

from patchknn.simulate.canvas import Layer, Site, Stains
from patchknn.simulate.fibres import Flow
from patchknn.simulate.shapes import Nuclei, draw_nuclei


def background(site: Site) -> Stains:
    """Glass: nearly nothing, with a soft haze, dust and now and then a blurred shadow."""
    level = float(site.rng.uniform(0.0, 0.04))
    haze = np.clip(level + 0.01 * site.smooth_noise(60, 2), 0, None)
    dust = Layer(site)
    specks = site.scatter(40, jitter=1.0)
    specks = specks[site.rng.random(len(specks)) < 0.3]
    draw_nuclei(site, dust, specks, Nuclei(1.8, 1.3, size_spread=0.4, chromatin=0.9))
    shadow = np.clip(site.smooth_noise(70) - 1.9, 0, 1) * np.float32(0.1)
    haematoxylin = haze + dust.amounts(0.6) + shadow
    return Stains(haematoxylin.astype(np.float32), (haze * 0.6 + shadow).astype(np.float32))


def debris(site: Site) -> Stains:
    """Granular necrosis: smudged eosin, cracks, nuclear dust and shrunken fragments."""
    clumps = site.smooth_noise(9, 3)
    grain = site.smooth_noise(2.4, 2)
    eosin = np.clip(float(site.rng.uniform(0.4, 0.8)) + 0.16 * clumps + 0.1 * grain, 0.03, None)
    cracks = np.clip(site.smooth_noise(11, 2) - 1.35, 0, 0.5) * 2
    eosin = eosin * (1 - 0.85 * cracks)
    dust = Layer(site)
    points = site.scatter(4.6, jitter=0.6)
    dense = site.at(site.smooth_noise(16, 2), points) + site.rng.normal(0, 0.5, len(points))
    points = points[dense > float(site.rng.uniform(-0.3, 0.8))]
    draw_nuclei(
        site,
        dust,
        points,
        Nuclei(2.4, 1.8, size_spread=0.5, raggedness=0.1, chromatin=1.5, chromatin_spread=0.35),
    )
    ghosts = site.scatter(17)
    draw_nuclei(
        site,
        dust,
        ghosts,
        Nuclei(6, 4.2, size_spread=0.3, raggedness=0.12, chromatin=0.8, chromatin_spread=0.4),
    )
    haematoxylin = np.clip(0.16 + 0.07 * clumps, 0, None) + dust.amounts(0.8)
    return Stains(haematoxylin.astype(np.float32), eosin.astype(np.float32))


def mucus(site: Site) -> Stains:
    """Pale pools with thin basophilic threads, bubbles of film and a few floating cells."""
    flow = Flow(site, amplitude=5, wavelength=80, drift=22)
    level = float(site.rng.uniform(0.03, 0.2))
    film = np.clip(level + 0.05 * site.smooth_noise(22, 3) + 0.04 * flow.streaks(60, 5), 0.01, None)
    threads = Layer(site)
    thin = max(round(site.pixels(0.5)), 1)
    flow.strands(threads, spacing=float(site.rng.uniform(13, 20)), length=70, fill=0.42, width=thin)
    # A second net across the first, as threads branch.
    other = Flow(site, amplitude=6, wavelength=60, drift=20)
    other.strands(threads, spacing=24, length=50, fill=0.36, width=thin)
    cells = site.scatter(42)
    cells = cells[site.rng.random(len(cells)) < 0.5]
    draw_nuclei(site, threads, cells, Nuclei(6, 5, size_spread=0.25, chromatin=1.2))
    haematoxylin = film + threads.amounts(0.8) + 0.02 * site.smooth_noise(1.5)
    return Stains(
        np.clip(haematoxylin, 0, None).astype(np.float32),
        (float(site.rng.uniform(0.1, 0.8)) * film).astype(np.float32),
    )
