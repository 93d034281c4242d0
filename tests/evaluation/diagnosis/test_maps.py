"""Maps: what is drawn from an archive, where it lies, and by which colour."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import silhouette_score

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.errors import InputError, UsageError
from patchknn.evaluation.diagnosis.map_colours import check_colour, colour_values
from patchknn.evaluation.diagnosis.map_figure import (
    OTHERS,
    UNKNOWN,
    groups_of,
    is_scale,
    map_figure,
    write_map,
)
from patchknn.evaluation.diagnosis.maps import Map, map_rows, sample_by_class, tsne, write_points
from patchknn.evaluation.outcomes import Outcome, Outcomes
from patchknn.slides.class_colours import class_colour

Make = Callable[..., Snapshot]


def clusters(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return np.eye(3, 12)[labels] * 20 + rng.normal(size=(n, 12)), labels


@pytest.fixture
def snapshot(feature_archive: Make) -> Snapshot:
    features, labels = clusters(0, 48)
    return feature_archive([features[:30], features[30:]], labels=[labels[:30], labels[30:]])


@pytest.fixture
def drawn(snapshot: Snapshot) -> Map:
    rng = np.random.default_rng(1)
    rows = tuple(snapshot.row(row) for row in range(48))
    return Map(rows, rng.normal(size=(48, 2)), "by hand")


def outcomes_of(snapshot: Snapshot) -> Outcomes:
    """Rows 5 to 40, backwards: every third is wrong, and row 6 has no prediction."""
    given = []
    for row in range(40, 4, -1):
        label = snapshot.row(row).label or ""
        said = None if row == 6 else "C" if row % 3 == 0 else label
        given.append(Outcome(snapshot.row(row).id, label, said, None, (), row=row))
    return Outcomes.of(given, 1, snapshot.classes)


def test_clusters_stay_apart_and_a_seed_says_how(snapshot: Snapshot) -> None:
    one, again = map_rows(snapshot, 100, 3), map_rows(snapshot, 100, 3)
    assert [row.row for row in one.rows] == list(range(48))
    assert silhouette_score(one.points, [row.label for row in one.rows]) > 0.5
    assert (one.points == again.points).all()
    assert one.method == again.method


def test_the_sample_is_even_by_class(feature_archive: Make) -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2, -1], [100, 40, 5, 60])
    archive = feature_archive([rng.normal(size=(205, 4))], labels=[rng.permutation(labels)])
    rows = sample_by_class(archive, 65, 0)
    assert Counter(archive.row(row).label for row in rows.tolist()) == {
        "A": 20,
        "B": 20,
        "C": 5,
        None: 20,
    }
    assert rows.tolist() == sorted(set(rows.tolist())) == sample_by_class(archive, 65, 0).tolist()
    assert rows.tolist() != sample_by_class(archive, 65, 1).tolist()
    assert sample_by_class(archive, 1000, 0).tolist() == list(range(205))


def test_rows_that_do_not_differ_are_no_trouble() -> None:
    points, method = tsne(np.ones((9, 4)), 0)
    assert points.shape == (9, 2)
    assert np.isfinite(points).all()
    assert "do not differ" in method


def test_five_rows_and_fewer(feature_archive: Make) -> None:
    rng = np.random.default_rng(5)
    assert np.isfinite(map_rows(feature_archive([rng.normal(size=(5, 3))]), 50, 0).points).all()
    with pytest.raises(InputError, match="has 4 rows to draw; 5 are needed"):
        map_rows(feature_archive([rng.normal(size=(4, 3))]), 50, 0)


def test_colours_of_rows_are_what_the_archive_says(snapshot: Snapshot, drawn: Map) -> None:
    outcomes = outcomes_of(snapshot)
    for colour, of in (("label", "label"), ("patient", "patient"), ("slide", "source")):
        values = colour_values(snapshot, drawn.rows, colour, outcomes)
        assert values == [getattr(snapshot.row(row), of) for row in range(48)]
    right = colour_values(snapshot, drawn.rows, "right", outcomes)
    said = colour_values(snapshot, drawn.rows, "prediction", outcomes)
    for row in range(48):
        label = snapshot.row(row).label
        wanted = None if row == 6 else "C" if row % 3 == 0 else label
        if not 5 <= row <= 40:
            assert right[row] is said[row] is None
        else:
            assert said[row] == wanted
            assert right[row] == ("right" if wanted == label else "wrong")


def test_colours_of_records(
    snapshot: Snapshot, drawn: Map, patchknn: Callable, tmp_path: Path
) -> None:
    (tmp_path / "r.csv").write_text("patient,site,age\nP0,north,50\nP1,south,61\n")
    command = ("archive", "records", "attach", snapshot.path, tmp_path / "r.csv")
    assert patchknn(*command, "--key", "patient").code == 0
    after = open_archive(snapshot.path)
    check_colour(after, "SITE", own_rows=False)
    values = colour_values(after, drawn.rows, "Site", outcomes_of(after))
    site = {"P0": "north", "P1": "south", "P2": None}
    assert values == [site[row.patient] for row in drawn.rows]
    with pytest.raises(UsageError, match="--colour: there is no field 'sites'; perhaps 'site'"):
        check_colour(after, "sites", own_rows=True)
    with pytest.raises(UsageError, match="--colour right: the map shows the archive's rows"):
        check_colour(after, "right", own_rows=False)


def test_twelve_names_and_the_others() -> None:
    values = [f"n{number}" for number in range(20) for _ in range(20 - number)] + [None] * 4
    unknown, others, *named = groups_of(values)
    assert (unknown.colour, len(unknown.members)) == (UNKNOWN, 4)
    assert (others.name, others.colour) == ("8 others", OTHERS)
    assert len(others.members) == sum(20 - number for number in range(12, 20))
    assert [group.name for group in named] == [f"n{number}" for number in range(12)]
    assert [group.colour for group in named] == [class_colour(number) for number in range(12)]
    every = np.concatenate([group.members for group in (unknown, others, *named)])
    assert sorted(every.tolist()) == list(range(len(values)))


def test_classes_keep_their_colours() -> None:
    groups = groups_of(["C", "C", "A"], ("A", "B", "C"))
    assert [(group.name, group.colour) for group in groups] == [
        ("C", class_colour(2)),
        ("A", class_colour(0)),
    ]
    assert {g.name: g.colour for g in groups_of(["wrong", "wrong", "right"])} == {
        "right": class_colour(0),
        "wrong": class_colour(1),
    }


def test_many_numbers_have_a_scale_and_few_have_names() -> None:
    assert is_scale([*range(13), None])
    assert not is_scale([*range(12)] * 3)
    assert not is_scale([True, False, None])
    assert not is_scale([*map(str, range(30))])


HOSTILE = ["$x_1$", "_hidden", "<script>", "a\nb", "\u202eright to left", "x" * 300, "$", "\\frac"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_map_is_the_same_file_each_time(drawn: Map, tmp_path: Path, suffix: str) -> None:
    values = [HOSTILE[number % len(HOSTILE)] for number in range(48)]
    for name in ("one", "two"):
        write_map(tmp_path / f"{name}{suffix}", map_figure(drawn, "$field_", values))
    data = (tmp_path / f"one{suffix}").read_bytes()
    assert data == (tmp_path / f"two{suffix}").read_bytes()
    if suffix == ".svg":
        text = data.decode()
        for shown in ("$x_1$ (6)", "_hidden (6)", "&lt;script&gt; (6)", "a\ufffdb (6)", "$field_"):
            assert shown in text
        assert "<script>" not in text
        assert "\u202e" not in text


def test_points_have_the_colours_of_their_groups(drawn: Map, tmp_path: Path) -> None:
    values = ["A"] * 20 + ["B"] * 20 + [None] * 8
    write_map(tmp_path / "m.png", map_figure(drawn, "label", values, ("A", "B")))
    with Image.open(tmp_path / "m.png") as image:
        pixels = np.array(image.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in (class_colour(0), class_colour(1), UNKNOWN):
        mixed = np.array(colour) * 0.85 + 255 * 0.15
        assert (np.abs(pixels - mixed).max(axis=1) <= 2).sum() > 100


def test_numbers_are_drawn_on_a_scale(drawn: Map, tmp_path: Path) -> None:
    write_map(tmp_path / "m.svg", map_figure(drawn, "age", [None, *range(20, 67)]))
    text = (tmp_path / "m.svg").read_text()
    assert ">age<" in text
    assert "(1)" not in text


def test_points_as_a_table(drawn: Map, tmp_path: Path) -> None:
    write_points(tmp_path / "p.csv", drawn, "site", [f"s{number}" for number in range(48)])
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [row.id for row in drawn.rows]
    assert [row["site"] for row in rows] == [f"s{number}" for number in range(48)]
    points = np.array([[float(row["map_x"]), float(row["map_y"])] for row in rows])
    assert (points == drawn.points).all()


def test_evaluate_draws_one(snapshot: Snapshot, patchknn: Callable, tmp_path: Path) -> None:
    command = ("evaluate", snapshot.path, "--exclude-same", "self", "--format", "ndjson")
    files = ("--map", tmp_path / "m.png", "--map-points", tmp_path / "m.csv")
    result = patchknn(*command, *files, "--colour", "right", "--map-rows", 30)
    assert result.code == 0, result.err
    assert "m.png is drawn: 30 rows, by right." in result.err
    with (tmp_path / "m.csv").open(newline="") as file:
        assert {row["right"] for row in csv.DictReader(file)} <= {"right", "wrong"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--map", "m.jpg"), "its name must end in .png, .svg or .pdf."),
        (("--map", "gone/m.png"), "there is no folder gone; make it first."),
        (("--map", "m.png", "--colour", "x"), "--colour: there is no field 'x'"),
        (("--map-points", "m.csv"), "--map-points needs --map."),
        (("--map", "m.png", "--map-points", "m.tsv"), "its name must end in .csv."),
        (("--map", "m.png", "--map-points", "no/m.csv"), "--map-points no/m.csv: there is no"),
    ],
)
def test_what_cannot_be_drawn_is_told_before_anything_is_asked(
    snapshot: Snapshot, patchknn: Callable, options: tuple[str, ...], sentence: str
) -> None:
    result = patchknn("evaluate", snapshot.path, *options)
    assert result.code == 2
    assert sentence in result.err
    assert result.out == ""
