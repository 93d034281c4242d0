from collections.abc import Callable, Sequence
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
from patchknn.evaluation.baselines.baselines import COLOUR_HISTOGRAM, MEAN_COLOUR, Asked, Baselines
from patchknn.evaluation.baselines.picture_pool import PicturePool
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.queries import archived_queries, content_of, patch_query
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


def asked_of(patches: Sequence[Patch]) -> list[Asked]:
    return [Asked(patch_query(p, np.empty(0), content_of(p.path)), p) for p in patches]


def evaluate_mean_colour(
    archive: Snapshot,
    patches: Sequence[Patch],
    settings: SearchSettings,
    slides_dir: Path | None = None,
) -> Evaluation:
    with PicturePool(archive, slides_dir, threads=2) as pool:
        (report,) = Baselines(pool, [MEAN_COLOUR], settings).evaluate(asked_of(patches))
    return report


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


def test_pictures_are_read_once_for_all_methods(archive: Snapshot, tmp_path: Path) -> None:
    read: list[int] = []
    settings = SearchSettings(k=3, exclude_same="self")
    with PicturePool(archive) as pool:
        both = Baselines(pool, [MEAN_COLOUR, COLOUR_HISTOGRAM], settings, read.append)
        # What is gone once it has been read is not missed.
        (tmp_path / "images").rename(tmp_path / "elsewhere")
        asked = asked_of([query(tmp_path / "elsewhere" / "0.png", "PINK", patient="P9")])
        reports = both.evaluate(asked)
    assert sum(read) == 8
    assert [report.method for report in reports] == ["mean-colour", "colour-histogram"]
    assert [named(report) for report in reports] == [[("PINK", ["PINK"] * 3)]] * 2


def test_rows_of_the_archive_are_asked_for_by_their_own_pictures(archive: Snapshot) -> None:
    settings = SearchSettings(k=3, exclude_same="self")
    asked = [Asked(one) for one in archived_queries(archive)]
    with PicturePool(archive) as pool:
        (report,) = Baselines(pool, [COLOUR_HISTOGRAM], settings).evaluate(asked)
    assert report.figures()["accuracy"] == 1.0
    assert report.settings["unread_queries"] == 0
    outcomes = report.outcomes
    assert not (outcomes.rows == outcomes.row[:, None]).any()


def test_answers_are_those_that_the_figures_are_made_of(archive: Snapshot, tmp_path: Path) -> None:
    settings = SearchSettings(k=4, exclude_same="patient")
    rows = list(archived_queries(archive))
    patch = query(tmp_path / "images" / "1.png", "BLUE", patient="P7")
    given = patch_query(patch, np.zeros(2), content_of(patch.path))
    asked = [Asked(rows[2]), Asked(given, patch)]
    with PicturePool(archive) as pool:
        baselines = Baselines(pool, [MEAN_COLOUR, COLOUR_HISTOGRAM], settings)
        answers, reports = baselines.answers(asked), baselines.evaluate(asked)
    assert list(answers) == ["mean-colour", "colour-histogram"]
    for report in reports:
        outcomes = report.outcomes
        own = answers[report.method]
        assert [one.query for one in own] == list(outcomes.queries)
        assert [[n.row for n in one.neighbours] for one in own] == outcomes.rows.tolist()
        assert [[n.l2 for n in one.neighbours] for one in own] == outcomes.distances.tolist()
        assert [one.prediction for one in own] == [prediction for prediction, _ in named(report)]
        assert [one.label for one in own] == [rows[2].label, "BLUE"]
        assert {n.hamming for one in own for n in one.neighbours} == {0}
        assert all(n.patient != rows[2].patient for n in own[0].neighbours)


def test_queries_are_seen_as_small_as_thumbnails(archive: Snapshot, tmp_path: Path) -> None:
    """A picture of stripes is one colour once it is small: so must the query be."""
    from io import BytesIO

    from PIL import Image

    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = Image.fromarray(stripes).resize((8, 8), Image.Resampling.BILINEAR)
    data = BytesIO()
    small.save(data, "JPEG", quality=95)
    record = (tmp_path / "stripes.png").stat()
    source = Source("other.png", "/gone/other.png", record.st_size, 0, b"x" * 16, patient="P8")
    with ArchiveWriter(tmp_path / "archive") as writer:
        writer.add(
            Rows(
                features=np.zeros((1, 2), np.float16),
                codes=np.zeros((1, 1), np.uint8),
                coords=np.full((1, 2), -1, np.int64),
                source=np.zeros(1, np.int32),
                labels=np.zeros(1, np.int32),
                sources=(source,),
                classes=("PINK",),
                thumbnails=(data.getvalue(),),
            )
        )
        writer.publish()
    asked = asked_of([query(tmp_path / "stripes.png", "PINK", patient="P9")])
    with PicturePool(open_archive(tmp_path / "archive")) as pool:
        settings = SearchSettings(k=1, exclude_same="patient")
        (answer,) = Baselines(pool, [COLOUR_HISTOGRAM], settings).answers(
            [Asked(asked[0].query._replace(feature=np.zeros(2)), asked[0].patch)]
        )["colour-histogram"]
    (nearest,) = answer.neighbours
    assert nearest.source == "other.png"
    assert nearest.l2 < 0.2
