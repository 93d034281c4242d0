"""The numbers that the drawings are made of."""

import numpy as np
import pytest

from patchknn.evaluation.figures.confidence import batches
from patchknn.evaluation.report.figures import (
    Judged,
    confidence_figure,
    confidence_histogram,
    recall_figure,
    reliability_figure,
    risk_coverage_figure,
    true_neighbours_figure,
    wilson,
)


def judged(n: int, seed: int = 0) -> Judged:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(1, 11, n) / 10
    return Judged("m", confidence, rng.random(n) < confidence)


def test_the_correlation_is_that_of_numpy() -> None:
    one = judged(1000)
    points = np.array([(b.confidence, b.accuracy) for b in batches(one.confidence, one.correct)])
    drawing = confidence_figure([one])
    assert f"r = {np.corrcoef(points.T)[0, 1]:.2f}" in drawing.text
    assert len(drawing.table.rows) == 20
    assert confidence_figure([judged(149)]) is None
    always = Judged("m", np.ones(200), np.ones(200, bool))
    assert "r =" not in confidence_figure([always]).text


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (7, 7), (500, 1000)])
def test_intervals_are_those_of_scipy(hits: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(hits / n, n), wanted, atol=1e-6)


def test_reliability_has_a_point_for_each_bin_that_has_queries() -> None:
    confidence = np.array([0.3, 0.3, 1.0, 1.0, 1.0])
    correct = np.array([True, False, True, True, True])
    rows = reliability_figure([Judged("m", confidence, correct)]).table.rows
    assert [(row[0], row[1], row[2], row[5]) for row in rows] == [
        ("m", pytest.approx(0.3), 0.5, 2),
        ("m", 1.0, 1.0, 3),
    ]


def test_risk_coverage_ends_at_the_error_rate() -> None:
    one = judged(5000)
    rows = risk_coverage_figure([one]).table.rows
    assert len(rows) <= 400
    assert rows[-1][1:] == (1.0, pytest.approx(1 - one.correct.mean()))
    assert rows[0][1] == 1 / 5000


def test_true_neighbours_are_counted() -> None:
    hits = np.array([0, 3, 3, 2])
    drawing = true_neighbours_figure([("a", hits), ("b", hits[::-1])], 3)
    assert drawing.table.rows == ((0, 1, 1), (1, 0, 0), (2, 1, 1), (3, 2, 2))
    assert "a: 50 %" in drawing.text


def test_confidences_fall_into_tenths() -> None:
    drawing = confidence_histogram(np.array([0.0, 0.1, 0.3, 0.31, 1.0]))
    assert [row[2] for row in drawing.table.rows] == [2, 0, 1, 1, 0, 0, 0, 0, 0, 1]


def test_class_names_are_drawn_as_they_are() -> None:
    names = ["$x_1$ \\frac", "a\nb", "x" * 300, "🔬", "<b>"]
    drawing = recall_figure(names, [("m", [0.1, 0.2, 0.3, 0.4, 0.5])])
    labels = [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]
    assert labels == ["$x_1$ \\frac", "a␊b", "x" * 27 + "…", "🔬", "<b>"]
