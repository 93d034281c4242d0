"""Suspected labels against a literal loop over confident learning's rule."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.datasets.listing import iter_patches
from patchknn.datasets.patches import Patch
from patchknn.errors import UsageError
from patchknn.evaluation.diagnosis.suspects import cross_class_pairs, find_suspects, vote_weights
from patchknn.evaluation.diagnosis.worklist import write_worklist
from patchknn.evaluation.evaluate import evaluate
from patchknn.evaluation.outcomes import Outcome, Outcomes
from patchknn.evaluation.queries import archived_queries
from patchknn.search.settings import SearchSettings
from patchknn.search.votes import weights

Make = Callable[..., Snapshot]
NAMES = ("A", "B", "C")
CENTRES = np.array([[8, 0, 0, 0], [0, 8, 0, 0], [0, 0, 8, 0]])


def planted(
    seed: int, n: int = 150, wrong: int = 15, spread: float = 1.6
) -> tuple[np.ndarray, ...]:
    """Three clusters with some labels that are wrong: features, labels, what is right."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 3, n)
    features = CENTRES[right] + rng.normal(0, spread, (n, 4))
    labels = right.copy()
    chosen = rng.choice(n, wrong, replace=False)
    labels[chosen] = (labels[chosen] + rng.integers(1, 3, wrong)) % 3
    return features, labels, right


def judged(snapshot: Snapshot, k: int = 7) -> Outcomes:
    settings = SearchSettings(k=k, radius=16, exclude_same="self")
    return evaluate(snapshot, archived_queries(snapshot), settings).outcomes


def by_loop(outcomes: Outcomes) -> dict[str, tuple[str, float]]:
    """Query → suggestion and margin, one by one, as the paper's equations have it."""
    probabilities = []
    for number in range(len(outcomes)):
        shares = dict.fromkeys(outcomes.classes, 0.0)
        norm = float(outcomes.norm[number])
        for label, distance in zip(
            outcomes.neighbours[number], outcomes.distances[number], strict=True
        ):
            if label >= 0:
                shares[outcomes.classes[label]] += weights([float(distance)], norm)[0]
        probabilities.append({name: value / outcomes.k for name, value in shares.items()})
    own = [outcomes.classes[number] for number in outcomes.label]
    limits = {
        name: np.mean(
            [p[name] for p, label in zip(probabilities, own, strict=True) if label == name]
        )
        for name in set(own)
    }
    found = {}
    for query, p, label in zip(outcomes.queries, probabilities, own, strict=True):
        confident = {name: p[name] for name in limits if p[name] >= limits[name]}
        if confident:
            best = max(confident, key=lambda name: confident[name])
            if best != label and p[best] > p[label]:
                found[query] = (best, p[best] - p[label])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_suspects_are_those_of_a_loop(feature_archive: Make, seed: int) -> None:
    features, labels, right = planted(seed)
    snapshot = feature_archive([features], labels=[labels])
    outcomes = judged(snapshot)
    expected = by_loop(outcomes)
    found = find_suspects(outcomes)
    names = [outcomes.queries[number] for number in found.numbers]
    assert set(names) == set(expected)
    for name, label, score in zip(names, found.suggested, found.score, strict=True):
        assert outcomes.classes[label] == expected[name][0]
        assert score == pytest.approx(expected[name][1])
    assert (np.diff(found.score) <= 0).all()
    truth = true_labels(snapshot, features, right)
    top = names[:10]
    precision = np.mean([truth[name] != labelled(snapshot, name) for name in top])
    ranked = sorted(expected, key=lambda name: -expected[name][1])[:10]
    assert precision == np.mean([truth[name] != labelled(snapshot, name) for name in ranked])
    assert precision >= 0.8


def true_labels(snapshot: Snapshot, features: np.ndarray, right: np.ndarray) -> dict[str, str]:
    stored = features.astype(np.float16).tolist()
    by_feature = {tuple(f): NAMES[label] for f, label in zip(stored, right, strict=True)}
    (shard,) = snapshot.shards
    return {
        snapshot.row(row).id: by_feature[tuple(shard.features[row].tolist())]
        for row in range(snapshot.n_rows)
    }


def labelled(snapshot: Snapshot, name: str) -> str | None:
    row = snapshot.locate(name)
    assert row is not None
    return snapshot.row(row).label


def test_relabel_takes_the_worklist_and_puts_labels_right(
    feature_archive: Make, patchknn: Callable, tmp_path: Path
) -> None:
    features, labels, right = planted(5, wrong=12, spread=0.5)
    snapshot = feature_archive([features], labels=[labels])
    truth = true_labels(snapshot, features, right)
    wrong = [name for name, label in truth.items() if labelled(snapshot, name) != label]
    table = tmp_path / "suspects.tsv"
    command = ("evaluate", snapshot.path, "--exclude-same", "self", "--radius", 16)
    result = patchknn(*command, "--suspects", table, "--format", "ndjson")
    assert result.code == 0, result.err
    assert f"{table}: " in result.err
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    suggested = {row["id"]: row["label"] for row in rows if row["kind"] == "votes"}
    found = set(wrong) & set(suggested)
    assert len(found) >= 11  # one lies among others that are wrong, below its class's threshold
    for row in rows:
        assert row["current"] == labelled(snapshot, row["id"])
        assert (row["label"] == row["current"]) == (row["kind"] == "pair")
    assert patchknn("archive", "relabel", snapshot.path, table).code == 0
    after = open_archive(snapshot.path)
    for name in found:
        assert labelled(after, name) == truth[name]
    unchanged = set(truth) - set(suggested)
    assert all(labelled(after, name) == labelled(snapshot, name) for name in unchanged)
    log = patchknn("archive", "log", snapshot.path, "--labels", "--format", "ndjson").out
    assert "suspected: votes for" in log


def test_a_weak_embedding_is_not_taken_for_wrong_labels(
    feature_archive: Make, patchknn: Callable, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    snapshot = feature_archive([rng.normal(size=(90, 4))], labels=[rng.integers(0, 3, 90)])
    command = ("evaluate", snapshot.path, "--exclude-same", "self", "--radius", 16)
    result = patchknn(*command, "--suspects", tmp_path / "s.tsv", "--format", "ndjson")
    assert result.code == 0, result.err
    assert "% of the labels are suspected: rather the neighbours are wrong" in result.err


def outcome(query: str, label: str, neighbours: str, distances: list[float], **more) -> Outcome:
    rows = tuple(range(len(neighbours)))
    shown = tuple(None if one == "-" else one for one in neighbours)
    fixed = {"rows": rows, "distances": tuple(distances), "norm": 1.0}
    return Outcome(query, label, None, None, shown, **{**fixed, **more})


def test_few_votes_weigh_less_than_many() -> None:
    """One neighbour of ten says little, even if it stands alone."""
    given = [outcome(f"a{i}", "A", "A" * 5, [0.1] * 5) for i in range(3)]
    given += [outcome(f"b{i}", "B", "B" * 5, [0.1] * 5) for i in range(3)]
    given += [outcome("one", "A", "B", [0.1]), outcome("five", "A", "B" * 5, [0.1] * 5)]
    outcomes = Outcomes.of(given, 5, ("A", "B"))
    assert [outcomes.queries[number] for number in find_suspects(outcomes).numbers] == ["five"]


def test_neighbours_without_label_and_queries_without_votes_accuse_nobody() -> None:
    given = [outcome("none", "A", "", []), outcome("blank", "B", "--", [0.0, 0.1])]
    outcomes = Outcomes.of(given, 3, ("A", "B"))
    assert len(find_suspects(outcomes).numbers) == 0
    assert (vote_weights(outcomes, np.arange(2)) == 0).all()


def test_a_row_that_finds_itself_is_no_witness() -> None:
    rows = (7, *range(4))
    given = [outcome(f"b{i}", "B", "BBBBB", [0.1] * 5) for i in range(3)]
    given.append(outcome("own", "A", "ABBBB", [0.0, *[0.1] * 4], row=7, rows=rows))
    outcomes = Outcomes.of(given, 5, ("A", "B"))
    assert vote_weights(outcomes, np.array([3]))[0, 0] == 0
    given[3] = given[3]._replace(row=8)
    apart = Outcomes.of(given, 5, ("A", "B"))
    assert vote_weights(apart, np.array([3]))[0, 0] == 1


def test_classes_that_the_archive_lacks_are_not_judged() -> None:
    given = [outcome(f"b{i}", "B", "BBB", [0.1] * 3) for i in range(3)]
    given.append(outcome("new", "NEW", "BBB", [0.1] * 3))
    outcomes = Outcomes.of(given, 3, ("A", "B"))
    assert len(find_suspects(outcomes).numbers) == 1
    assert len(find_suspects(outcomes, [True, True, False]).numbers) == 0


def test_a_single_class_and_missing_neighbours_are_no_trouble() -> None:
    outcomes = Outcomes.of([outcome("a", "A", "A", [0.5])], 4, ("A",))
    assert len(find_suspects(outcomes).numbers) == 0
    assert len(cross_class_pairs(outcomes, 5).numbers) == 0


def test_pairs_are_the_closest_of_two_classes() -> None:
    given = [
        outcome("far", "A", "B", [3.0], norm=2.0),
        outcome("same", "A", "A", [0.0]),
        outcome("copy", "A", "B", [0.0], norm=0.0),
        outcome("near", "B", "AB", [0.5, 0.6], norm=2.0),
        outcome("blank", "B", "-A", [0.1, 0.2]),
    ]
    pairs = cross_class_pairs(Outcomes.of(given, 2, ("A", "B")), 3)
    assert [given[number].query for number in pairs.numbers] == ["copy", "near", "far"]
    assert pairs.closeness.tolist() == [0, 0.25, 1.5]


def test_the_worklist_of_data_is_a_manifest(feature_archive: Make, tmp_path: Path) -> None:
    from PIL import Image

    features, labels, _ = planted(2)
    snapshot = feature_archive([features], labels=[labels])
    outcomes = judged(snapshot)
    patches = {}
    for number, name in enumerate(outcomes.queries):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
        patient = f"P{number % 4}"
        patches[name] = Patch(f"é {number}.png", path, "image", patient=patient, split="val")
    written = write_worklist(tmp_path / "list.csv", snapshot, outcomes, patches)
    listed = list(iter_patches([tmp_path / "list.csv"], size=8, mpp=None))
    assert len(listed) == written.suspects + written.pairs > 0
    suspects = find_suspects(outcomes)
    for patch, number, label in zip(listed, suspects.numbers, suspects.suggested, strict=False):
        wanted = patches[outcomes.queries[number]]
        assert isinstance(patch, Patch)
        assert (patch.source, patch.path, patch.patient) == (
            wanted.source,
            wanted.path,
            wanted.patient,
        )
        assert patch.label == outcomes.classes[label]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("list.xlsx", r"its name must end in \.tsv or \.csv"),
        ("gone/list.tsv", r"there is no folder .*gone; make it first"),
    ],
)
def test_a_name_that_does_not_do_is_told_of(
    feature_archive: Make, tmp_path: Path, name: str, sentence: str
) -> None:
    features, labels, _ = planted(2, n=20)
    snapshot = feature_archive([features], labels=[labels])
    with pytest.raises(UsageError, match=sentence):
        write_worklist(tmp_path / name, snapshot, judged(snapshot))
    assert list(tmp_path.iterdir()) == []
