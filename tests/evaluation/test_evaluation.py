import json

import pytest

from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.outcomes import Outcome, Outcomes


def outcome(label: str, prediction: str | None, votes: str, **rest: object) -> Outcome:
    confidence = None if prediction is None else votes.count(prediction) / len(votes)
    return Outcome("q", label, prediction, confidence, tuple(votes), **rest)  # type: ignore[arg-type]


@pytest.fixture
def evaluation() -> Evaluation:
    ball = {"widened": False, "empty": False}
    return Evaluation(
        method="patchknn",
        outcomes=Outcomes.of(
            [
                outcome(
                    "A",
                    "A",
                    "AAAA",
                    ball=40,
                    classifier="A",
                    probability=0.9,
                    l2_true=4,
                    weighted_confidence=0.5,
                    **ball,
                ),
                outcome(
                    "A",
                    "B",
                    "ABBB",
                    ball=20,
                    classifier="A",
                    probability=0.6,
                    l2_true=2,
                    weighted_confidence=0.7,
                    **ball,
                ),
                outcome(
                    "B",
                    "B",
                    "BB",
                    ball=2,
                    classifier="A",
                    probability=0.8,
                    l2_true=4,
                    weighted_confidence=1.0,
                    widened=True,
                    empty=True,
                ),
                outcome("C", None, "", ball=0, classifier="B", l2_true=0, widened=True, empty=True),
            ],
            4,
        ),
        known_classes=("A", "B"),
        failed=1,
    )


def test_figures_of_a_worked_case(evaluation: Evaluation) -> None:
    figures = evaluation.figures()
    assert figures["n"] == 4
    assert figures["classes"] == ["A", "B", "C"]
    assert figures["accuracy"] == 0.5
    assert figures["mean_class_recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert figures["recall_smallest_class"] == 0.0
    assert figures["smallest_class"] == "C"
    assert figures["precision_at_k"] == pytest.approx((4 + 1 + 2 + 0) / 16)
    assert figures["all_k_true"] == 0.25
    # Of "AAAA", "A", "BB" and nothing that is true, in places 1 to 4.
    assert figures["map_at_k"] == pytest.approx((1 + 1 / 4 + 2 / 4 + 0) / 4)
    assert figures["patients"] == 0
    assert figures["l2_precision_at_k"] == pytest.approx(10 / 16)
    assert figures["mean_ball"] == pytest.approx(62 / 4)
    assert figures["empty_balls"] == 0.5
    assert figures["widened"] == 0.5
    assert figures["classifier_accuracy"] == 0.5
    # Right: 1.0 and 1.0; wrong: 0.75, and no answer at all, which counts as no confidence.
    assert figures["confidence_auroc"] == 1.0
    assert figures["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert figures["ece"] == pytest.approx((2 * 0 + 0.75 + 0) / 4)
    # By distance the wrong one stands between the two right ones.
    assert figures["weighted_confidence_auroc"] == 0.75
    assert figures["weighted_aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert figures["weighted_ece"] == pytest.approx((0 + 0.7 + 0.5 + 0) / 4)
    # The classifier is right, wrong, right in the order of its probabilities; one has none.
    assert figures["classifier_aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_classes_that_the_archive_lacks_are_named(evaluation: Evaluation) -> None:
    assert evaluation.unknown_classes == {"C": 1}
    assert evaluation.as_json()["unknown_classes"] == {"C": 1}


def test_json_has_the_keys_of_the_design_and_both_tables(evaluation: Evaluation) -> None:
    value = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    design = (
        "n k classes accuracy mean_class_recall recall_smallest_class precision_at_k all_k_true "
        "l2_precision_at_k mean_ball empty_balls widened confidence_auroc aurc ece "
        "classifier_accuracy"
    )
    assert set(design.split()) <= set(value)
    assert [row["class"] for row in value["per_class"]] == ["A", "B", "C"]
    assert [row["recall"] for row in value["per_class"]] == [0.5, 1.0, 0.0]
    assert value["per_class"][0]["precision_at_k"] == pytest.approx(5 / 8)
    assert [row["n"] for row in value["confidence_bins"]] == [1, 0, 0, 0, 0, 0, 0, 1, 0, 2]
    assert [row["precision"] for row in value["per_class"]] == [1.0, 0.5, None]
    assert [row["f1"] for row in value["per_class"]] == pytest.approx([2 / 3, 2 / 3, 0])
    assert value["neighbour_histogram"] == [1, 1, 1, 0, 1]
    assert value["confusion"] == {
        "true": ["A", "B", "C"],
        "predicted": ["A", "B", "C", None],
        "counts": [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
    }


def test_figures_that_a_method_lacks_are_none() -> None:
    figures = Evaluation("mean-colour", Outcomes.of([outcome("A", "A", "A")], 1), ("A",)).figures()
    for name in (
        "mean_ball",
        "empty_balls",
        "widened",
        "l2_precision_at_k",
        "classifier_accuracy",
        "classifier_aurc",
        "weighted_confidence_auroc",
        "weighted_aurc",
        "weighted_ece",
    ):
        assert figures[name] is None
    assert figures["confidence_auroc"] is None
