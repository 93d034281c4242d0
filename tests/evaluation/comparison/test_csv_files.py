import csv
from pathlib import Path

import numpy as np
import pytest

from patchknn.errors import UsageError
from patchknn.evaluation.comparison.compare import with_intervals
from patchknn.evaluation.comparison.csv_files import (
    Table,
    check_folder,
    figure_tables,
    section_tables,
    write_csv,
)
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.outcomes import Outcome, Outcomes
from patchknn.evaluation.sections import Section


def evaluation(method: str, seed: int) -> Evaluation:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(30):
        votes = tuple("AB"[one] for one in rng.integers(0, 2, 3))
        best = max("AB", key=votes.count)
        made.append(
            Outcome(
                *(f"q{number}", "AB"[number % 2], best, votes.count(best) / 3, votes),
                patient=f"P{number % 4}",
            )
        )
    return Evaluation(method, Outcomes.of(made, 3, "AB"), ("A", "B"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_what_is_reported(tmp_path: Path) -> None:
    both = with_intervals([evaluation("m", 1), evaluation('other, "odd"', 2)], 50, 0)
    folder = tmp_path / "new" / "tables"
    write_csv(folder, figure_tables(both))
    files = {path.stem: read(path) for path in folder.iterdir()}
    assert set(files) == {
        *("figures", "paired", "per_class", "confusion", "neighbour_histogram"),
        *("confidence_batches", "confidence_bins", "risk_coverage"),
    }
    first = both[0]
    figures = {row["figure"]: row for row in files["figures"] if row["method"] == "m"}
    assert float(figures["accuracy"]["value"]) == first.figures()["accuracy"]
    low, high = first.intervals["accuracy"]
    assert (float(figures["accuracy"]["low"]), float(figures["accuracy"]["high"])) == (low, high)
    assert figures["classes"]["value"] == "A B"
    assert figures["mean_ball"]["value"] == ""
    paired = files["paired"]
    assert [row["method"] for row in paired] == ['other, "odd"'] * 2
    assert both[1].paired is not None
    assert float(paired[0]["p"]) == both[1].paired.accuracy.p
    counts = {
        (row["true"], row["predicted"]): int(row["n"])
        for row in files["confusion"]
        if row["method"] == "m"
    }
    outcomes = first.outcomes
    for true in "AB":
        for called in "AB":
            mine = (outcomes.label == "AB".index(true)) & (
                outcomes.prediction == "AB".index(called)
            )
            assert counts[true, called] == mine.sum()
    histogram = [row for row in files["neighbour_histogram"] if row["method"] == "m"]
    assert [int(row["n"]) for row in histogram] == first.neighbour_histogram()
    risks = [row for row in files["risk_coverage"] if row["method"] == "m"]
    risks = [row for row in risks if row["score"] == "confidence"]
    assert float(risks[-1]["coverage"]) == 1.0
    for row in risks:
        kept = outcomes.confidence >= float(row["threshold"])
        assert float(row["coverage"]) == pytest.approx(kept.mean())
        assert float(row["risk"]) == pytest.approx(1 - outcomes.correct[kept].mean())


def test_sections_have_the_ends_of_their_intervals(tmp_path: Path) -> None:
    rows = [
        {
            "field": "scanner",
            "value": "old",
            "accuracy": 0.5,
            "intervals": {"accuracy": [0.4, 0.6]},
        },
        {"field": "scanner", "value": None, "accuracy": None, "intervals": {}},
    ]
    write_csv(
        tmp_path,
        section_tables([Section("by_field", "By field", ("field", "value", "accuracy"), rows)]),
    )
    assert (tmp_path / "by_field.csv").read_text() == (
        "field,value,accuracy,accuracy_low,accuracy_high\nscanner,old,0.5,0.4,0.6\nscanner,,,,\n"
    )


def test_what_was_there_stays_until_the_new_table_is_whole(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield [1]
        raise RuntimeError

    write_csv(tmp_path, {"one": Table(["a"], [["bytes \udcff"]])})
    assert (tmp_path / "one.csv").read_text() == "a\nbytes \\udcff\n"
    with pytest.raises(RuntimeError):
        write_csv(tmp_path, {"one": Table(["a"], rows())})
    assert (tmp_path / "one.csv").read_text() == "a\nbytes \\udcff\n"
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match="is a file: give a folder"):
        check_folder(tmp_path / "x")
    check_folder(tmp_path / "y")
