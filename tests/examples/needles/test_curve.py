"""Where the curve says that generalisation ends."""

from __future__ import annotations


def _rows(pooling, train, accuracies, seed=0):
    return [
        {"ratio": str(ratio), "train": str(train), "pooling": pooling, "accuracy": str(accuracy)}
        for ratio, accuracy in accuracies.items()
    ]


def test_the_limit_is_the_last_ratio_before_accuracy_falls(module):
    curve = module("curve")
    rows = [
        *_rows("max", 100, {0.19: 0.9, 0.05: 0.76, 0.01: 0.6}),
        *_rows("max", 1000, {0.19: 0.97, 0.05: 0.9, 0.01: 0.75}),
        # Two seeds, and a network that is lucky further down.
        *_rows("mean", 100, {0.19: 0.80, 0.05: 0.72, 0.01: 0.9}),
        *_rows("mean", 100, {0.19: 0.72, 0.05: 0.74, 0.01: 0.9}),
        *_rows("mean", 1000, {0.19: 0.7, 0.05: 0.6}),
    ]
    assert curve.limits(rows).splitlines() == [
        "| training images | max | mean |",
        "|---|---|---|",
        "| 100 | 5 % | 19 % |",
        "| 1,000 | 1 % | none |",
    ]


def test_a_figure_is_drawn_of_few_results_too(module, tmp_path):
    module("curve").draw_curve(_rows("max", 100, {0.19: 0.9}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "curve.svg"}
