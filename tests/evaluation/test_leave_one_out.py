"""The archive's own rows as queries, against a loop over all pairs of rows."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from patchknn.archive.choice import Choice
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.errors import InputError
from patchknn.evaluation.evaluate import evaluate
from patchknn.evaluation.queries import archived_queries, check_archived, count_archived
from patchknn.search.settings import SearchSettings

Make = Callable[..., Snapshot]
K = 3


@pytest.fixture
def archive(feature_archive: Make) -> Snapshot:
    """Two shards; some rows without a label, and one source that was removed."""
    rng = np.random.default_rng(2)
    labels = [rng.integers(-1, 3, n) for n in (30, 25)]
    parts = [rng.normal(size=(len(some), 6)) + 2 * some[:, None] for some in labels]
    snapshot = feature_archive(parts, labels=labels)
    remove_rows(snapshot.path, Choice(slides=("s1-2",)))
    return open_archive(snapshot.path)


def left_out(own: dict, other: dict, level: str) -> bool:
    if level == "self":
        return own["row"] == other["row"]
    return own[level] == other[level]


@pytest.mark.parametrize("level", ["self", "slide", "patient"])
def test_agrees_with_a_loop_over_all_pairs(archive: Snapshot, level: str) -> None:
    rows = []
    for shard in archive.shards:
        for local in shard.live_rows().tolist():
            row = archive.row(shard.first_row + local)
            rows.append(
                {
                    "row": row.row,
                    "id": row.id,
                    "slide": row.source,
                    "patient": row.patient,
                    "label": row.label,
                    "feature": np.asarray(shard.features[local], np.float64),
                }
            )
    assert any(row["label"] is None for row in rows)
    assert all(row["slide"] != "s1-2" for row in rows)
    expected = {}
    for own in rows:
        if own["label"] is None:
            continue
        others = [row for row in rows if not left_out(own, row, level)]
        others.sort(key=lambda row: np.linalg.norm(row["feature"] - own["feature"]))
        expected[own["id"]] = [row["label"] for row in others[:K]]

    settings = SearchSettings(k=K, radius=16, exclude_same=level)
    report = evaluate(archive, archived_queries(archive), settings)
    outcomes = report.outcomes
    assert list(outcomes.queries) == list(expected)
    for number, query in enumerate(outcomes.queries):
        found = [
            None if label < 0 else outcomes.classes[label]
            for label in outcomes.neighbours[number].tolist()
        ]
        assert found == expected[query]
        votes = Counter(label for label in found if label is not None).most_common()
        if len(votes) == 1 or (votes and votes[0][1] > votes[1][1]):
            assert outcomes.classes[outcomes.prediction[number]] == votes[0][0]
    labelled = sum(row["label"] is not None for row in rows)
    assert count_archived(archive) == (labelled, len(rows) - labelled)
    assert len(outcomes) == labelled


def test_without_any_patient_one_sentence_says_so(feature_archive: Make) -> None:
    check_archived(feature_archive([np.zeros((2, 4))]), "patient")
    unknown = feature_archive([np.zeros((2, 4)), np.ones((3, 4))], patients=False)
    for level in ("none", "self", "slide"):
        check_archived(unknown, level)
    with pytest.raises(InputError, match=r"names no patient.*--exclude-same slide or self"):
        check_archived(unknown, "patient")
