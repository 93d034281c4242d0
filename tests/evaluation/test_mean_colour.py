from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.datasets.patches import Patch
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.mean_colour import archive_colours, evaluate_mean_colour
from patchknn.files import quickhash
from patchknn.search.settings import SearchSettings

Picture = Callable[..., Path]
PINK, BLUE = (220, 120, 170), (90, 80, 160)


@pytest.fixture
def archive(tmp_path: Path, picture: Picture) -> Snapshot:
    """Two patients, two classes; the features are of no use."""
    sources, labels = [], []
    for number in range(8):
        label = number % 2
        path = picture(tmp_path / "images" / f"{number}.png", (PINK, BLUE)[label], seed=number)
        record = path.stat()
        sources.append(
            Source(
                name=path.name,
                path=str(path),
                size=record.st_size,
                mtime_ns=record.st_mtime_ns,
                quickhash=quickhash(path),
                patient=f"P{number // 4}",
            )
        )
        labels.append(label)
    hash_map = LinearMap(np.ones((8, 2), np.float32), np.zeros(8, np.float32))
    write_bundle(tmp_path / "encoder", EncoderDescription(2, 8, "sign"), hash_map)
    bundle = load_bundle(tmp_path / "encoder")
    create_archive(tmp_path / "archive", bundle, patch_px=32, mpp=None)
    features = np.zeros((8, 2), np.float16)
    with ArchiveWriter(tmp_path / "archive") as writer:
        writer.add(
            Rows(
                features=features,
                codes=bundle.codes(features),
                coords=np.full((8, 2), -1, np.int64),
                source=np.arange(8, dtype=np.int32),
                labels=np.array(labels, np.int32),
                sources=tuple(sources),
                classes=("PINK", "BLUE"),
            )
        )
        writer.publish()
    return open_archive(tmp_path / "archive")


def query(path: Path, label: str, patient: str = "P0") -> Patch:
    return Patch(path.name, path, "image", label=label, patient=patient)


def test_colours_are_those_of_the_pictures(archive: Snapshot) -> None:
    (colours,) = archive_colours(archive)
    labels = [archive.row(row).label for row in range(archive.n_rows)]
    expected = [PINK if label == "PINK" else BLUE for label in labels]
    np.testing.assert_allclose(colours, expected, atol=2)


def named(evaluation: Evaluation) -> list[tuple[str | None, list[str]]]:
    """Prediction and neighbours of each query, by name."""
    outcomes = evaluation.outcomes
    names = [*outcomes.classes, None]  # the last is where −1 points
    return [
        (names[prediction], [outcomes.classes[one] for one in row if one >= 0])
        for prediction, row in zip(
            outcomes.prediction.tolist(), outcomes.neighbours.tolist(), strict=True
        )
    ]


def test_nearest_colour_votes_and_the_own_patient_does_not(
    archive: Snapshot, picture: Picture, tmp_path: Path
) -> None:
    asked = [
        query(picture(tmp_path / "q" / "a.png", PINK, seed=100), "PINK"),
        query(picture(tmp_path / "q" / "b.png", BLUE, seed=101), "PINK"),
    ]
    report = evaluate_mean_colour(archive, asked, SearchSettings(k=2, exclude_same="patient"))
    assert named(report) == [("PINK", ["PINK", "PINK"]), ("BLUE", ["BLUE", "BLUE"])]
    whole = evaluate_mean_colour(archive, asked[:1], SearchSettings(k=8, exclude_same="patient"))
    assert named(whole) == [("PINK", ["PINK", "PINK", "BLUE", "BLUE"])]
    assert report.settings["unread_rows"] == 0


def test_pictures_that_are_gone_are_counted(
    archive: Snapshot, picture: Picture, tmp_path: Path
) -> None:
    (tmp_path / "images" / "3.png").unlink()
    picture(tmp_path / "images" / "4.png", BLUE, seed=77)  # changed since
    asked = [
        query(picture(tmp_path / "q" / "a.png", PINK), "PINK"),
        query(tmp_path / "q" / "gone.png", "BLUE"),
    ]
    report = evaluate_mean_colour(archive, asked, SearchSettings(k=8, exclude_same="none"))
    assert report.settings["unread_rows"] == 2
    assert report.settings["unread_queries"] == 1
    (_, neighbours), nothing = named(report)
    assert (len(neighbours), nothing) == (6, (None, []))


def test_pictures_that_moved_are_found(archive: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "images").rename(tmp_path / "moved")
    asked = [query(tmp_path / "moved" / "0.png", "PINK", patient="P9")]
    settings = SearchSettings(k=3, exclude_same="self")
    lost = evaluate_mean_colour(archive, asked, settings)
    assert lost.settings["unread_rows"] == 8
    found = evaluate_mean_colour(archive, asked, settings, slides_dir=tmp_path / "moved")
    assert found.settings["unread_rows"] == 0
    assert [neighbours for _, neighbours in named(found)] == [["PINK"] * 3]
