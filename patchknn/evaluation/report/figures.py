"""The drawings of an evaluation, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from patchknn.evaluation.figures import metrics
from patchknn.evaluation.figures.confidence import BATCH, batches
from patchknn.evaluation.report.drawing import FAINT, MARKERS, colour, new_figure, report_style
from patchknn.evaluation.report.parts import Drawing, Table
from patchknn.evaluation.report.words import percent, shortened
from patchknn.figures.correlation import pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_CURVE_POINTS = 400
_Z = 1.959964  # of a 95 % interval


class Judged(NamedTuple):
    """A method's confidence (n,) in [0, 1] and whether each answer was right (n,)."""

    method: str
    confidence: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]


def true_neighbours_figure(counts: Sequence[tuple[str, npt.NDArray[np.int64]]], k: int) -> Drawing:
    """How many queries have 0, 1, … k true neighbours (paper A, Fig. 2); counts (n,) by method."""
    shares = [np.bincount(hits, minlength=k + 1)[: k + 1] for _, hits in counts]
    with report_style():
        figure, axes = new_figure()
        width = 0.8 / len(counts)
        for number, ((method, _), held) in enumerate(zip(counts, shares, strict=True)):
            left = np.arange(k + 1) + (number - (len(counts) - 1) / 2) * width
            label = shortened(method, 30)
            axes.bar(left, held, width * 0.95, color=colour(number), label=label)
        axes.set_xlabel(f"true neighbours among {k}")
        axes.set_ylabel("queries")
        axes.set_xticks(range(k + 1) if k <= 15 else np.linspace(0, k, 11).round().astype(int))
        axes.grid(visible=False, axis="x")
        if len(counts) > 1:
            axes.legend()
    all_true = ", ".join(
        f"{method}: {percent(float((hits == k).mean()))}" for method, hits in counts
    )
    rows = [(hits, *(int(held[hits]) for held in shares)) for hits in range(k + 1)]
    return Drawing(
        "true-neighbours",
        figure,
        f"Bars: queries by number of true neighbours. All {k} true in {all_true}.",
        Table(("true neighbours", *(method for method, _ in counts)), tuple(rows)),
    )


def confidence_figure(methods: Sequence[Judged]) -> Drawing | None:
    """Accuracy against confidence in batches of 50 (paper A, Fig. 3), with their correlation.

    None where there are fewer than three batches.
    """
    methods = [one for one in methods if len(one.correct) >= 3 * BATCH]
    if not methods:
        return None
    rows: list[tuple[str, float, float]] = []
    told = []
    with report_style():
        figure, axes = new_figure(5.2, 4.4)
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
        for number, one in enumerate(methods):
            held = batches(one.confidence, one.correct)
            points = np.array([(batch.confidence, batch.accuracy) for batch in held])
            rows += [(one.method, float(x), float(y)) for x, y in points]
            r = pearson(*points.T)
            told.append(f"{one.method}: r = {r:.2f}" if r is not None else one.method)
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=26,
                alpha=0.75,
                color=colour(number),
                marker=MARKERS[number % len(MARKERS)],
                label=shortened(told[-1], 40),
            )
        _share_axes(axes, "mean confidence of 50 queries", "accuracy of the 50")
        axes.legend(loc="upper left")
    return Drawing(
        "accuracy-against-confidence",
        figure,
        "Points: accuracy of batches of 50 queries against their mean confidence; the dashed line "
        f"is where both are equal. {'; '.join(told)}.",
        Table(("method", "confidence", "accuracy"), tuple(rows)),
    )


def reliability_figure(methods: Sequence[Judged], bins: int = 10) -> Drawing:
    """Accuracy per bin of confidence, with Wilson's 95 % intervals."""
    rows: list[tuple[str, float, float, float, float, int]] = []
    with report_style():
        figure, axes = new_figure(5.2, 4.4)
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
        for number, one in enumerate(methods):
            held = metrics.confidence_bins(one.confidence, one.correct, bins)
            points = [
                (b.confidence, b.accuracy, *wilson(b.accuracy, b.n), b.n)
                for b in held
                if b.confidence is not None and b.accuracy is not None
            ]
            x, y, low, high, _ = np.array(points).T
            axes.errorbar(
                x,
                y,
                # An interval of 0 or 1 may miss its own middle by a last bit.
                np.maximum([y - low, high - y], 0),
                color=colour(number),
                marker=MARKERS[number % len(MARKERS)],
                capsize=3,
                linewidth=1.2,
                label=shortened(one.method, 30),
            )
            rows += [(one.method, *point) for point in points]
        _share_axes(axes, "confidence", "accuracy")
        axes.legend(loc="upper left")
    return Drawing(
        "reliability",
        figure,
        "Lines: the share of right answers by confidence, with 95 % intervals; the dashed line is "
        "where both are equal.",
        Table(("method", "confidence", "accuracy", "low", "high", "n"), tuple(rows)),
    )


def risk_coverage_figure(methods: Sequence[Judged]) -> Drawing:
    """The error rate among the surest answers, by how many are kept."""
    rows: list[tuple[str, float, float]] = []
    with report_style():
        figure, axes = new_figure()
        for number, one in enumerate(methods):
            risk = metrics.risk_coverage(one.confidence, one.correct)
            n = len(risk)
            at = np.unique(np.linspace(0, n - 1, min(n, _CURVE_POINTS)).round().astype(int))
            coverage = (at + 1) / n
            axes.plot(
                coverage,
                risk[at],
                color=colour(number),
                linestyle=("-", "--", ":", "-.")[number % 4],
                label=shortened(one.method, 40),
            )
            pairs = zip(coverage, risk[at], strict=True)
            rows += [(one.method, float(x), float(y)) for x, y in pairs]
        axes.set_xlabel("share of queries that are answered, the surest first")
        axes.set_ylabel("wrong among these")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        _percent_axis(axes.xaxis)
        _percent_axis(axes.yaxis)
        axes.legend()
    return Drawing(
        "risk-coverage",
        figure,
        "Curves: the error rate among the answers that are kept when the least sure are set aside.",
        Table(("method", "coverage", "risk"), tuple(rows)),
    )


def recall_figure(
    classes: Sequence[str], recalls: Sequence[tuple[str, Sequence[float]]]
) -> Drawing:
    """Recall by class, a bar for each method."""
    with report_style():
        height = 1.1 + len(classes) * max(0.24 * len(recalls), 0.34)
        figure, axes = new_figure(5.8, height)
        thick = 0.8 / len(recalls)
        for number, (method, values) in enumerate(recalls):
            at = np.arange(len(classes)) + (number - (len(recalls) - 1) / 2) * thick
            bars = axes.barh(at, values, thick * 0.92, color=colour(number))
            bars.set_label(shortened(method, 30))
        axes.set_yticks(range(len(classes)), [shortened(name, 28) for name in classes])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("recall")
        _percent_axis(axes.xaxis)
        axes.grid(visible=False, axis="y")
        if len(recalls) > 1:
            figure.legend(loc="outside upper left", ncols=3)
    columns = zip(*(values for _, values in recalls), strict=True)
    rows = tuple((name, *values) for name, values in zip(classes, columns, strict=True))
    return Drawing(
        "recall-by-class",
        figure,
        "Bars: how many queries of each class were found.",
        Table(("class", *(method for method, _ in recalls)), rows),
    )


def confidence_histogram(confidence: npt.NDArray[np.float64]) -> Drawing:
    """How sure the answers are (n,), where nobody knows yet which are right."""
    edges = np.linspace(0, 1, 11)
    place = np.clip(np.ceil(np.round(confidence * 10, 9)).astype(int) - 1, 0, 9)
    held = np.bincount(place, minlength=10)
    with report_style():
        figure, axes = new_figure(5.8, 3.2)
        axes.bar(edges[:-1] + 0.05, held, 0.092, color=colour(0))
        axes.set_xlabel("confidence")
        axes.set_ylabel("queries")
        axes.set_xticks(edges[::2])
        _percent_axis(axes.xaxis)
        axes.grid(visible=False, axis="x")
    spans = zip(edges[:-1].tolist(), edges[1:].tolist(), held.tolist(), strict=True)
    rows = tuple((round(low, 1), round(high, 1), count) for low, high, count in spans)
    return Drawing(
        "confidence", figure, "Bars: queries by confidence.", Table(("above", "to", "n"), rows)
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson 1927)."""
    spread = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    middle, scale = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    return float((middle - spread) / scale), float((middle + spread) / scale)


def _share_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _percent_axis(axes.xaxis)
    _percent_axis(axes.yaxis)


def _percent_axis(axis: Axis) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
