"""Gathering: which answers are of which slide, and what their files are called."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.patches import Patch
from patchknn.evaluation.overlays import slide_answers
from patchknn.evaluation.overlays.slide_answers import SlideAnswers, SlideTiles, file_stem
from patchknn.search.answers import Answer, Neighbour

Make = Callable[..., Snapshot]


def answer(prediction: str | None, confidence: float | None = None, *, l2: float = 2.5) -> Answer:
    neighbour = Neighbour(0, "n", prediction, 1, l2, "n", -1, -1, None)
    neighbours = () if prediction is None else (neighbour,)
    review = prediction is None
    fixed = (confidence, confidence, {}, 1, 7, False, review, None)
    return Answer("q", None, prediction, *fixed, neighbours)


def patch(source: str, x: int, y: int, folder: str = "/slides", mpp: float | None = 0.5) -> Patch:
    return Patch(source, Path(folder) / source, "slide", x, y, slide_mpp=mpp)


@pytest.fixture
def snapshot(feature_archive: Make) -> Snapshot:
    return feature_archive([np.random.default_rng(0).normal(size=(6, 4))])


@pytest.fixture
def kept() -> list[tuple[Path, SlideTiles]]:
    return []


@pytest.fixture
def gathered(
    snapshot: Snapshot, kept: list[tuple[Path, SlideTiles]], tmp_path: Path
) -> SlideAnswers:
    return SlideAnswers(snapshot, [(tmp_path, ".txt", lambda path, t: kept.append((path, t)))])


def test_answers_become_columns_of_their_slide(
    gathered: SlideAnswers, kept: list[tuple[Path, SlideTiles]], tmp_path: Path
) -> None:
    gathered.add(patch("a.svs", 0, 32), answer("B", 0.75))
    gathered.add(patch("b.svs", 5, 5), answer("C", 1.0))
    gathered.add(patch("a.svs", 32, 32), answer(None))
    gathered.finish()
    by_path = dict(kept)
    assert gathered.written == list(by_path)
    assert set(by_path) == {tmp_path / "a.svs.txt", tmp_path / "b.svs.txt"}
    tiles = by_path[tmp_path / "a.svs.txt"]
    assert tiles.coords.tolist() == [[0, 32], [32, 32]]
    assert [tiles.classes[number] for number in tiles.prediction[:1]] == ["B"]
    assert tiles.prediction[1] == -1
    assert tiles.confidence[0] == 0.75
    assert np.isnan(tiles.confidence[1])
    assert np.isnan(tiles.distance[1])
    assert tiles.radius.tolist() == [1, 1]
    assert tiles.ball.tolist() == [7, 7]
    assert tiles.review.tolist() == [False, True]
    assert tiles.side == 32  # the archive takes pixels of level 0 as they are


def test_images_and_features_are_counted_and_nothing_else(
    gathered: SlideAnswers, kept: list[tuple[Path, SlideTiles]]
) -> None:
    gathered.add(None, answer("A", 1.0))
    gathered.add(Patch("a.png", Path("a.png"), "image"), answer("A", 1.0))
    gathered.finish()
    assert gathered.ignored == 2
    assert kept == []


def test_slides_that_wait_are_written_when_they_are_too_many(
    gathered: SlideAnswers,
    kept: list[tuple[Path, SlideTiles]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(slide_answers, "_MOST_TILES", 4)
    for name in ("a", "b", "a", "c", "a"):
        gathered.add(patch(name, 0, 0), answer("A", 1.0))
    assert [path.name for path, _ in kept] == ["b.txt"]  # a goes on, and b had none for longest
    gathered.add(patch("b", 1, 1), answer("A", 1.0))
    gathered.finish()
    assert sorted(path.name for path, _ in kept) == ["a.txt", "b-2.txt", "b.txt", "c.txt"]
    (problem,) = gathered.problems
    assert "b was given more than once" in problem
    assert "b-2.txt" in problem


def test_two_slides_of_one_name_do_not_replace_each_other(
    gathered: SlideAnswers, kept: list[tuple[Path, SlideTiles]]
) -> None:
    gathered.add(patch("s.svs", 0, 0, "/x"), answer("A", 1.0))
    gathered.add(patch("s.svs", 9, 9, "/y"), answer("B", 1.0))
    gathered.finish()
    assert [(path.name, t.path.parent.name) for path, t in kept] == [
        ("s.svs.txt", "x"),
        ("s.svs-2.txt", "y"),
    ]
    assert len(gathered.problems) == 1


def test_a_slide_without_mpp_keeps_pixels_of_level_0(
    gathered: SlideAnswers, kept: list[tuple[Path, SlideTiles]], tmp_path: Path
) -> None:
    path = tmp_path / "bare.tif"
    Image.new("RGB", (64, 64), (200, 100, 150)).save(path)
    gathered.add(Patch("bare.tif", path, "slide", 0, 0), answer("A", 1.0))
    gathered.finish()
    ((_, tiles),) = kept
    assert tiles.mpp is None
    assert tiles.side == 32


def test_a_slide_that_is_gone_is_told_of_and_the_rest_is_written(
    gathered: SlideAnswers, kept: list[tuple[Path, SlideTiles]]
) -> None:
    gathered.add(patch("gone.svs", 0, 0, mpp=None), answer("A", 1.0))
    gathered.add(patch("b.svs", 0, 0), answer("A", 1.0))
    gathered.finish()
    assert [path.name for path, _ in kept] == ["b.svs.txt"]
    (problem,) = gathered.problems
    assert problem.startswith("gone.svs is not put back on its slide: /slides/gone.svs does not")


@pytest.mark.parametrize("name", ["s1.svs", "site/s 1.ome.tif", "ÄÖ/фото 🙂.svs", "a-b_c.svs"])
def test_usual_names_stay(name: str) -> None:
    assert file_stem(name) == Path(name)


HOSTILE = [
    *("../../etc/passwd", "/abs/s.svs", "a/../b", "..", "", "C:\\x|y", "a\nb", "<script>.svs"),
    *("x" * 5000, "é" * 300 + ".svs", "a\udce4b.svs", "a//b", "./a"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_below_their_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / file_stem(name)
    assert ".." not in path.parts
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.geojson").write_text("")


def test_names_that_would_be_called_alike_are_told_apart() -> None:
    names = [*HOSTILE, "a/b", "b", "x" * 4999, "a_b", "a", "etc/passwd"]
    assert len({file_stem(name) for name in names}) == len(names)
