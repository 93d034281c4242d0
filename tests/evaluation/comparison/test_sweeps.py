from collections.abc import Callable

import numpy as np
import pytest

from patchknn.archive.snapshot import Snapshot
from patchknn.errors import UsageError
from patchknn.evaluation.comparison.sweeps import COLUMNS, Sweep, read_sweep, sweep_rows, swept
from patchknn.evaluation.evaluate import evaluate, evaluate_all
from patchknn.evaluation.ways import Ways, in_this_process
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]


@pytest.fixture
def archive(feature_archive: Make) -> Snapshot:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 3, 120)
    features = rng.normal(size=(120, 5)) + 2 * np.eye(5)[labels]
    return feature_archive([features], labels=[labels], bits=24)


def queries() -> list[Query]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 40)
    features = (rng.normal(size=(40, 5)) + 2 * np.eye(5)[labels]).astype(np.float16)
    return [Query(f"q{i}", features[i], label="ABC"[labels[i]]) for i in range(40)]


@pytest.mark.parametrize(
    "sweep", [Sweep("k", (1, 3, 7)), Sweep("radius", (0, 2)), Sweep("bits", (24,))]
)
def test_a_row_is_the_evaluation_with_that_value(archive: Snapshot, sweep: Sweep) -> None:
    settings = SearchSettings(k=5, exclude_same="none")

    def ways(changed: SearchSettings) -> Ways:
        return in_this_process(archive, changed, yardstick=False)

    judged = evaluate_all(archive, queries(), swept(archive, settings, sweep, ways))
    rows = sweep_rows(sweep, judged, 20, 0)
    assert [row["value"] for row in rows] == list(sweep.values)
    for row in rows:
        alone = settings
        if sweep.name != "bits":  # of all bits the codes have: as it is
            alone = settings._replace(**{sweep.name: row["value"]})
        figures = evaluate(archive, queries(), alone).figures()
        assert tuple(row) == (*COLUMNS, "intervals")
        assert set(row["intervals"]) == {"accuracy", "mean_class_recall", "precision_at_k"}
        assert {name: figures[name] for name in COLUMNS[2:]} == {
            name: row[name] for name in COLUMNS[2:]
        }


def test_sweeps_in_words() -> None:
    assert read_sweep("k=1,3,3, 5") == Sweep("k", (1, 3, 5))
    for text in ("k", "k=", "k=a", "rows=3", "=1"):
        with pytest.raises(UsageError, match=f"--sweep {text}: say it as"):
            read_sweep(text)


def test_values_that_cannot_be(archive: Snapshot) -> None:
    def ways(changed: SearchSettings) -> Ways:
        return in_this_process(archive, changed, yardstick=False)

    settings = SearchSettings()
    with pytest.raises(UsageError, match="--k 0 asks for no neighbours"):
        swept(archive, settings, Sweep("k", (0,)), ways)
    with pytest.raises(UsageError, match="--radius 25 is more than the archive's codes"):
        swept(archive, settings, Sweep("radius", (25,)), ways)
    with pytest.raises(UsageError, match="12 bits"):
        swept(archive, settings, Sweep("bits", (12,)), ways)
    with pytest.raises(UsageError, match="leave --coarse away"):
        swept(archive, SearchSettings(coarse="l2"), Sweep("radius", (1,)), ways)
