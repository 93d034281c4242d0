"""The needle curve: accuracy over ratio, a line per training size, a panel per pooling."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

FOUND_BELOW = 0.75
_Rows = list[dict[str, str]]


def draw_curve(rows: _Rows, folder: Path) -> None:
    """Write ``curve.png`` and ``curve.svg``: means over seeds, and a band from least to most."""
    poolings = list(dict.fromkeys(row["pooling"] for row in rows))
    figure, axes = plt.subplots(
        *(1, len(poolings)),
        figsize=(1 + 3 * len(poolings), 3.4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    sizes = sorted({int(row["train"]) for row in rows})
    colours = plt.get_cmap("viridis_r")(np.linspace(0.1, 0.9, len(sizes)))
    for axis, pooling in zip(axes[0], poolings, strict=True):
        for size, colour in zip(sizes, colours, strict=True):
            found = _by_ratio(rows, pooling, size)
            values = [found[ratio] for ratio in sorted(found)]
            x = [100 * ratio for ratio in sorted(found)]
            means = [np.mean(each) for each in values]
            axis.plot(x, means, marker="o", markersize=4, color=colour, label=f"{size:,}")
            low, high = [min(each) for each in values], [max(each) for each in values]
            axis.fill_between(x, low, high, color=colour, alpha=0.2)
        axis.axhline(0.5, color="grey", linewidth=1, linestyle=":")
        axis.set(
            title=pooling, xscale="log", xlabel="object to image, % of area", ylim=(0.45, 1.02)
        )
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy, test images")
    axes[0, -1].legend(title="training images", fontsize=8)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"curve.{suffix}", dpi=150)
    plt.close(figure)


def limits(rows: _Rows) -> str:
    """A Markdown table: the smallest ratio down to which accuracy stays at 75 % or more.

    Counted from the largest ratio on, so that a lucky network further down does not count.
    """
    poolings = list(dict.fromkeys(row["pooling"] for row in rows))
    sizes = sorted({int(row["train"]) for row in rows})
    lines = [
        "| training images | " + " | ".join(poolings) + " |",
        "|---" * (len(poolings) + 1) + "|",
    ]
    for size in sizes:
        cells = [limit(_by_ratio(rows, pooling, size)) for pooling in poolings]
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def limit(found: dict[float, list[float]]) -> str:
    """The last ratio of a falling series with a mean accuracy of 75 %, as a per cent."""
    last = None
    for ratio in sorted(found, reverse=True):
        if np.mean(found[ratio]) < FOUND_BELOW:
            break
        last = ratio
    return "none" if last is None else f"{100 * last:.3g} %"


def _by_ratio(rows: _Rows, pooling: str, size: int) -> dict[float, list[float]]:
    found: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row["pooling"] == pooling and int(row["train"]) == size:
            found[float(row["ratio"])].append(float(row["accuracy"]))
    return found
