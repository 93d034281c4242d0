"""What the legend beside a slide's overlay tells: classes, how often and how sure."""

from __future__ import annotations

import numpy as np

from patchknn.evaluation.overlays.slide_answers import SlideTiles
from patchknn.slides.class_colours import Colour, class_colour
from patchknn.slides.legend import Legend

_MOST_CLASSES = 24


def overlay_legend(tiles: SlideTiles, downsample: float) -> Legend:
    """The legend of a slide's predictions; ``downsample`` of the picture is of level 0."""
    present = tiles.prediction[tiles.prediction >= 0]
    most = int(np.bincount(present).argmax()) if len(present) else -1
    return Legend(
        title=tiles.name,
        subtitle=f"{len(tiles.coords)} tiles",
        lines=_class_lines(tiles),
        steps="confidence" if tiles.calibrated is None else "calibrated confidence",
        colour=class_colour(most),
        downsample=downsample,
        mpp=tiles.mpp,
        framed=f"for review: {int(tiles.review.sum())}" if tiles.review.any() else None,
    )


def _class_lines(tiles: SlideTiles) -> list[tuple[Colour | None, str]]:
    """The classes that were predicted, in the archive's order: how often, and how surely."""
    counts = np.bincount(tiles.prediction + 1, minlength=len(tiles.classes) + 1)
    present = np.flatnonzero(counts[1:])
    shown = present
    if len(present) > _MOST_CLASSES:
        shown = np.sort(present[np.argsort(-counts[1:][present], kind="stable")[:_MOST_CLASSES]])
    lines: list[tuple[Colour | None, str]] = []
    for number in shown.tolist():
        sure = float(np.nanmean(tiles.sureness[tiles.prediction == number]))
        text = f"{counts[number + 1]} at {sure:.0%}  {tiles.classes[number]}"
        lines.append((class_colour(number), text))
    rest = int(counts[1:].sum() - counts[1:][shown].sum())
    if rest:
        lines.append((None, f"{rest} in {len(present) - len(shown)} others"))
    if counts[0]:
        lines.append((class_colour(-1), f"{counts[0]} without a prediction"))
    return lines
