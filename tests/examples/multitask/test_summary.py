"""The table: which column an encoder stands in, and what is said of several seeds."""

from __future__ import annotations

from collections import Counter


def _row(task, encoder, seed, accuracy):
    figures = {"accuracy": str(accuracy), "mean_recall": "0.5"}
    return {"task": task, "encoder": encoder, "seed": str(seed), **figures}


def test_means_and_deviations_over_seeds(module, tmp_path):
    rows = [
        _row("a", "imagenet", 0, 0.5),
        _row("a", "b", 0, 0.6),
        _row("a", "b", 1, 0.8),
        _row("a", "b+c", 0, 0.9),
        _row("b", "a+c", 0, 0.7),
    ]
    module("summary").write_table(tmp_path / "t.md", rows, ("imagenet", "a", "b", "c"))
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[:6] == [
        "Accuracy:",
        "",
        "| left out | imagenet | a | b | c | all others |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a | 0.500 |  | 0.700 ± 0.141 |  | 0.900 |",
        "| b |  |  |  |  | 0.700 |",
    ]
    assert lines[7] == "Mean class recall:"


def test_every_encoder_sees_about_as_many_images(module):
    epochs_for = module("left_out").epochs_for
    sizes = {"a": Counter(x=3000, y=1000), "b": Counter(x=10, y=10, z=10, w=10, v=10)}
    assert epochs_for(["a"], sizes, 12_000) == 3
    assert epochs_for(["b"], sizes, 1_000) == 20
    # 250 batches of 16 images of a, and 32 of b, which comes round again.
    assert epochs_for(["a", "b"], sizes, 24_000) == 2
    assert epochs_for(["a", "b"], sizes, 10) == 1
