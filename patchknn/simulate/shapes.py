"""Outlines of many cells at once: ellipses with ragged edges, and cells that fill the plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchknn.simulate.canvas import Floats, Layer, Site

_CORNERS = 14


@dataclass(frozen=True)
class Nuclei:
    """How the nuclei of a tissue look.

    ``length`` and ``width`` in µm; ``size_spread`` the log-normal spread of their size;
    ``raggedness`` the share by which an outline departs from an ellipse; ``chromatin`` the
    haematoxylin inside, ``rim`` that of the membrane (None: none), ``chromatin_spread`` the
    spread of both between nuclei; ``nucleoli`` the share of nuclei that show one.
    """

    length: float
    width: float
    size_spread: float = 0.1
    raggedness: float = 0.05
    chromatin: float = 1.4
    rim: float | None = None
    chromatin_spread: float = 0.12
    nucleoli: float = 0.0


def ragged_ellipses(
    site: Site,
    centres: Floats,
    axes: tuple[Floats, Floats],
    angle: Floats,
    raggedness: float,
) -> Floats:
    """Outlines (n, 14, 2) in px of ellipses; two axes (n,) in pixels, angle (n,) in radians."""
    turn = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False, dtype=np.float32)
    phase = site.rng.uniform(0, 2 * np.pi, (len(centres), 2, 1)).astype(np.float32)
    length, width = axes
    radius = 0.5 + raggedness * (np.cos(2 * turn + phase[:, 0]) + np.cos(3 * turn + phase[:, 1]))
    along = radius * np.cos(turn) * length[:, None]
    across = radius * np.sin(turn) * width[:, None]
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x = centres[:, :1] + along * cosine - across * sine
    y = centres[:, 1:] + along * sine + across * cosine
    return np.stack([x, y], axis=2).astype(np.float32)


def draw_nuclei(
    site: Site, layer: Layer, centres: Floats, look: Nuclei, angle: Floats | None = None
) -> None:
    """Draw nuclei at points (n, 2) in pixels; ``angle`` (n,) in radians, at random without."""
    count = len(centres)
    rng = site.rng
    if angle is None:
        angle = rng.uniform(0, np.pi, count).astype(np.float32)
    scale = np.exp(rng.normal(0, look.size_spread, count)).astype(np.float32)
    stretch = np.exp(rng.normal(0, look.size_spread / 2, count)).astype(np.float32)
    length = site.pixels(look.length) * scale * stretch
    width = site.pixels(look.width) * scale / stretch
    outlines = ragged_ellipses(site, centres, (length, width), angle, look.raggedness)
    depth = site.chromatin * np.exp(rng.normal(0, look.chromatin_spread, count))
    for outline, amount in zip(outlines.reshape(count, -1).tolist(), depth.tolist(), strict=True):
        rim = None if look.rim is None else look.rim * amount
        layer.polygon(outline, look.chromatin * amount, rim)
    if look.nucleoli > 0:
        chosen = np.flatnonzero(rng.random(count) < look.nucleoli)
        spot = np.full(len(chosen), max(site.pixels(1.6), 2.0), np.float32)
        offset = rng.normal(0, 0.12, (len(chosen), 2)) * width[chosen, None]
        places = (centres[chosen] + offset).astype(np.float32)
        dots = ragged_ellipses(site, places, (spot, spot), spot * 0, 0.0)
        dark = (look.rim or look.chromatin) * site.chromatin * 1.3
        for outline in dots.reshape(len(chosen), -1).tolist():
            layer.polygon(outline, dark)


def nearest_two(site: Site, spacing: float, warp: float) -> tuple[Floats, Floats, Floats]:
    """Distances (height, width) in pixels to the nearest and second nearest of scattered seeds.

    ``spacing`` of the seeds and ``warp``, by which borders are bent, in µm. The third result
    is a number in 0..1 of the nearest seed, the same all over its cell.
    """
    step = site.pixels(spacing)
    x = site.x + site.smooth_noise(spacing * 0.8) * site.pixels(warp)
    y = site.y + site.smooth_noise(spacing * 0.8) * site.pixels(warp)
    rows, columns = int(site.height / step) + 6, int(site.width / step) + 6
    jitter = site.rng.uniform(-0.3, 0.3, (2, rows, columns)).astype(np.float32)
    seed_x = (np.arange(columns, dtype=np.float32)[None, :] - 2 + jitter[0]) * step
    seed_x += (np.arange(rows) % 2)[:, None].astype(np.float32) * (step / 2)
    seed_y = (np.arange(rows, dtype=np.float32)[:, None] - 2 + jitter[1]) * step
    own = site.rng.random((rows, columns)).astype(np.float32)
    home_row = np.clip(np.rint(y / step).astype(np.intp) + 2, 2, rows - 3)
    shift = (home_row % 2).astype(np.float32) / 2
    home_column = np.clip(np.rint(x / step - shift).astype(np.intp) + 2, 2, columns - 3)
    first = np.full((site.height, site.width), np.inf, np.float32)
    second = first.copy()
    number = site.blank()
    home = home_row * columns + home_column
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            seed = home + (down * columns + right)
            distance = np.hypot(x - seed_x.ravel()[seed], y - seed_y.ravel()[seed])
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            number = np.where(closer, own.ravel()[seed], number)
            first = np.where(closer, distance, first)
    return first, second, number
