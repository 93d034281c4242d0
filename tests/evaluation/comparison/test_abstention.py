import numpy as np

from patchknn.evaluation.comparison.abstention import COLUMNS, abstention_section
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.outcomes import Outcome, Outcomes


def test_a_threshold_gives_the_accuracy_that_was_wished() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.integers(1, 11, 800) / 10
    right = rng.random(800) < confidence
    outcomes = Outcomes.of(
        [
            Outcome(str(n), "A", "A" if is_right else "B", sure, ("A",))
            for n, (sure, is_right) in enumerate(zip(confidence.tolist(), right, strict=True))
        ],
        1,
    )
    section = abstention_section([Evaluation("m", outcomes, ("A",))])
    assert section.columns == COLUMNS
    assert [row["wished"] for row in section.rows] == [0.9, 0.95, 0.99]
    for row in section.rows:
        if "threshold" in row:
            kept = confidence >= row["threshold"]
            assert row["accuracy"] == right[kept].mean() >= row["wished"]
            assert row["coverage"] == kept.mean()
            assert row["lower"] < row["accuracy"]
    assert "threshold" in section.rows[0]
