"""The standard sections against scikit-learn, and what they say where figures are missing."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.outcomes import Outcome, Outcomes
from patchknn.evaluation.report.comparison import comparison_section, points
from patchknn.evaluation.report.parts import Cell
from patchknn.evaluation.report.sections import (
    confusion_section,
    evaluation_sections,
    figures_section,
)

NAMES = ("A", "B", "C")


def evaluation(method: str = "m", *, n: int = 200, seed: int = 0, classes=NAMES) -> Evaluation:
    rng = np.random.default_rng(seed)
    outcomes = []
    for number in range(n):
        label = classes[rng.integers(len(classes))]
        found = tuple(label if rng.random() < 0.7 else classes[0] for _ in range(4))
        prediction = max(sorted(set(found)), key=found.count) if number % 17 else None
        outcomes.append(
            Outcome(
                query=f"q{number}",
                label=label,
                prediction=prediction,
                confidence=None if prediction is None else found.count(prediction) / 4,
                neighbours=found if prediction is not None else (),
            )
        )
    return Evaluation(method, Outcomes.of(outcomes, 4, classes), tuple(classes))


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    one = evaluation()
    names = np.array([*NAMES, "no votes"])
    outcomes = one.outcomes
    wanted = confusion_matrix(
        names[outcomes.label], names[outcomes.prediction], labels=[*NAMES, "no votes"]
    )
    section = confusion_section(one)
    assert section.table.columns == ("true class, taken for", "A", "B", "C", "no votes")
    found = [[cell.text for cell in row[1:]] for row in section.table.rows]
    assert found == wanted[:3].tolist()
    for number, row in enumerate(section.table.rows):
        assert [cell.strong for cell in row[1:]] == [place == number for place in range(4)]
        assert all((cell.shade > 0) == (cell.text > 0) for cell in row[1:])


def test_of_many_classes_the_most_frequent_confusions_are_named() -> None:
    classes = [f"class {number:02}" for number in range(40)]
    one = evaluation(n=2000, classes=classes)
    section = confusion_section(one)
    counts = [row[2] for row in section.table.rows]
    assert counts == sorted(counts, reverse=True)
    true, found, count, _ = section.table.rows[0]
    names = [*one.outcomes.classes, "no votes"]
    pairs = zip(one.outcomes.label.tolist(), one.outcomes.prediction.tolist(), strict=True)
    assert count == sum((names[t], names[p]) == (true, found) for t, p in pairs)
    titles = [part.title for part in evaluation_sections([one])]
    assert titles[:3] == ["Figures", "Classes", "Confusions"]


def test_the_best_of_a_line_is_bold_and_what_nobody_has_is_left_out() -> None:
    first, second = evaluation(), evaluation("n", seed=1)
    section = figures_section([first.as_json(), second.as_json()])
    assert section.table.columns == ("figure", "m", "n")
    by_name = {row[0].text: row[1:] for row in section.table.rows}
    assert "Patches compared" not in by_name
    accuracies = [one.figures()["accuracy"] for one in (first, second)]
    assert accuracies[0] != accuracies[1]
    assert [cell.strong for cell in by_name["Accuracy"]] == [
        value == max(accuracies) for value in accuracies
    ]
    errors = [one.figures()["ece"] for one in (first, second)]
    assert [cell.strong for cell in by_name["Calibration error (ECE)"]] == [
        value == min(errors) for value in errors
    ]


def test_of_figures_that_are_all_the_same_none_is_bold() -> None:
    section = figures_section([evaluation().as_json(), evaluation("n").as_json()])
    assert not any(cell.strong for row in section.table.rows for cell in row[1:])


def test_figures_that_are_not_known_here_go_by_their_names() -> None:
    report = {"method": "m", "n": 5, "k": 3, "accuracy": 0.5, "some_new_figure": 0.25}
    intervals = {"intervals": {"accuracy": [0.4, 0.6]}}
    section = figures_section([report | intervals, report | {"accuracy": None}])
    rows = {row[0].text: row[1:] for row in section.table.rows}
    assert rows["some new figure"] == (Cell("0.25"), Cell("0.25"))
    assert rows["Accuracy"] == (Cell("50 %", "40 % to 60 %"), Cell("–"))


def test_few_queries_have_no_batches_of_fifty() -> None:
    titles = [section.title for section in evaluation_sections([evaluation(n=40)])]
    assert "Accuracy against confidence" not in titles
    assert "Reliability" in titles
    titles = [section.title for section in evaluation_sections([evaluation(n=400)])]
    assert "Accuracy against confidence" in titles


def test_methods_need_not_have_the_same_classes() -> None:
    few = evaluation("few", n=30, classes=("A", "D"))
    sections = {section.title: section for section in evaluation_sections([evaluation(), few])}
    table = sections["Classes"].table
    assert table.columns[:4] == ("class", "queries", "recall, m", "precision, m")
    assert table.columns[4] == "true neighbours, m"
    assert [row[0] for row in table.rows] == ["A", "B", "C", "D"]
    assert table.rows[1][-1] == table.rows[3][2] == "–"
    assert table.rows[3][1] == few.class_rows()[1]["n"]


def test_one_query_alone_is_enough() -> None:
    assert len(evaluation_sections([evaluation(n=2)])) >= 5


def test_differences_have_their_section_where_there_are_some() -> None:
    assert comparison_section([{"method": "m"}, {"method": "n", "paired": None}]) is None
    paired = {"against": "m", "difference": -0.051, "interval": [-0.1, 0.02], "p": 0.21}
    section = comparison_section(
        [{"method": "n", "paired": paired | {"n": 10, "patients": 4}}, {"method": "m"}]
    )
    assert section.table.rows == (("n, against m", "−5.1", "−10.0 to +2.0", "0.21", 10, 4),)
    assert points(0) == "+0.0"


@pytest.mark.parametrize("missing", ["unknown", None])
def test_an_evaluation_without_any_prediction_is_shown(missing: str | None) -> None:
    outcomes = Outcomes.of([Outcome("q", "A", missing, None, ())] * 60, 3, NAMES)
    sections = evaluation_sections([Evaluation("m", outcomes, NAMES)])
    assert sections[2].title == "Confusion matrix"
