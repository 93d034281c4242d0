"""The montage shows the right pictures with the right borders, and says what it cannot show."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchknn.archive.create import create_archive
from patchknn.archive.rows import Rows, Source
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle, write_bundle
from patchknn.bundle_description import EncoderDescription, LinearMap
from patchknn.errors import UsageError
from patchknn.evaluation import montage
from patchknn.evaluation.montage import draw_montage
from patchknn.evaluation.pictures import PictureFinder
from patchknn.files import quickhash
from patchknn.search.engine import Searcher
from patchknn.search.query import stored_query
from patchknn.search.settings import SearchSettings

SIZE = 32
RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 90)


def archive_of(folder, files, coords, labels, *, thumbnails=None, mpp=None):
    """One row per file and position; row i has the features i, 0."""
    write_bundle(
        folder / "e", EncoderDescription(2, 8, "sign"), LinearMap(np.ones((8, 2)), np.ones(8))
    )
    bundle = load_bundle(folder / "e")
    create_archive(folder / "a", bundle, patch_px=SIZE, mpp=mpp)
    classes = tuple(sorted({label for label in labels if label}))
    features = np.array([[float(number), 0.0] for number in range(len(coords))])
    names = list(dict.fromkeys(files))
    sources = tuple(
        Source(path.name, str(path), path.stat().st_size, 0, quickhash(path), mpp) for path in names
    )
    rows = Rows(
        features,
        bundle.codes(features),
        np.array(coords),
        np.array([names.index(file) for file in files], np.int32),
        np.array([classes.index(label) if label else -1 for label in labels], np.int32),
        sources,
        classes,
        thumbnails,
    )
    with ArchiveWriter(folder / "a") as writer:
        writer.add(rows)
        writer.publish()
    return open_archive(folder / "a")


def flat(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), colour).save(path)
    return path


@pytest.fixture
def plain(tmp_path):
    """Four images: red a, green a, blue b, grey without a label."""
    files = [flat(tmp_path / "in" / f"{n}.png", c) for n, c in enumerate([RED, GREEN, BLUE, GREY])]
    return archive_of(tmp_path, files, [[-1, -1]] * 4, ["a", "a", "b", None])


def answer_of(snapshot, name, **settings):
    searcher = Searcher(snapshot, SearchSettings(radius=8, k=3, **settings))
    return searcher.search(stored_query(snapshot, name))


def cell(image, row, rank):
    """Border colour and middle colour of a neighbour's tile."""
    left = montage._NEIGHBOURS_LEFT + rank * (montage._CELL + montage._GAP)
    top = montage._MARGIN + montage._HEADER + row * montage._ROW
    middle = montage._CELL // 2
    return image.getpixel((left + 2, top + 2)), image.getpixel((left + middle, top + middle))


def test_pictures_and_borders_follow_the_classes(plain, tmp_path):
    answer = answer_of(plain, "0.png")
    assert [neighbour.id for neighbour in answer.neighbours] == ["1.png", "2.png", "3.png"]
    draw_montage([answer], plain, tmp_path / "m.png", [np.full((9, 9, 3), 77, np.uint8)])
    with Image.open(tmp_path / "m.png") as image:
        cells = [cell(image, 0, rank) for rank in range(3)]
        query = image.getpixel((montage._MARGIN + 60, montage._MARGIN + montage._HEADER + 60))
    assert cells == [(montage._AGREES, GREEN), (montage._DIFFERS, BLUE), (montage._UNKNOWN, GREY)]
    assert query == (77, 77, 77)


def test_the_true_class_decides_against_the_prediction(plain, tmp_path):
    answer = answer_of(plain, "2.png", labelled_only=True)
    assert (answer.label, answer.prediction) == ("b", "a")
    draw_montage([answer], plain, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert cell(image, 0, 0)[0] == montage._DIFFERS


def test_a_source_that_is_gone_or_changed_is_not_shown_unless_it_lies_elsewhere(plain, tmp_path):
    snapshot = plain
    (tmp_path / "in").rename(tmp_path / "moved")
    with PictureFinder(snapshot) as finder:
        assert [finder.of_row(row) for row in range(4)] == [None] * 4
    flat(tmp_path / "moved" / "1.png", BLUE)  # the same name and size, another picture
    rows = [snapshot.locate(f"{number}.png") for number in range(3)]
    with PictureFinder(snapshot, tmp_path / "moved") as finder:
        assert tuple(finder.of_row(rows[0])[0, 0]) == RED
        assert finder.of_row(rows[1]) is None
        assert tuple(finder.of_row(rows[2])[0, 0]) == BLUE
    draw_montage([answer_of(snapshot, "0.png")], snapshot, tmp_path / "m.jpg")
    with Image.open(tmp_path / "m.jpg") as image:
        assert image.format == "JPEG"


def test_tiles_are_cut_from_their_slide(tmp_path):
    pixels = np.full((256, 256, 3), 255, np.uint8)
    pixels[64:128, 0:64] = RED
    pixels[128:192, 64:128] = BLUE
    slide = tmp_path / "s.tif"
    tifffile.imwrite(slide, pixels, tile=(64, 64), photometric="rgb")
    snapshot = archive_of(tmp_path, [slide] * 2, [[0, 64], [64, 128]], ["a", "b"], mpp=0.5)
    with PictureFinder(snapshot) as finder:
        for name, colour in (("s.tif@0_64", RED), ("s.tif@64_128", BLUE)):
            picture = finder.of_row(snapshot.locate(name))
            assert picture.shape == (SIZE, SIZE, 3)
            assert (picture == colour).all()
        several = finder.of_rows([1, 0])
        for row, picture in zip([1, 0], several, strict=True):
            np.testing.assert_array_equal(picture, finder.of_row(row))


def test_stored_thumbnails_need_no_source(tmp_path):
    file = flat(tmp_path / "0.png", RED)
    thumbnail = BytesIO()
    Image.new("RGB", (16, 16), BLUE).save(thumbnail, "JPEG", quality=95)
    snapshot = archive_of(tmp_path, [file], [[-1, -1]], ["a"], thumbnails=(thumbnail.getvalue(),))
    file.unlink()
    with PictureFinder(snapshot) as finder:
        picture = finder.of_row(0)
    assert picture.shape == (16, 16, 3)
    np.testing.assert_allclose(picture[0, 0], BLUE, atol=6)


def test_names_are_not_trusted_and_no_answers_make_an_empty_sheet(plain, tmp_path):
    answer = answer_of(plain, "0.png")
    odd = answer._replace(query="\x1b[31m\n" + "ü" * 500, prediction="x" * 99)
    draw_montage([odd] * 3, plain, tmp_path / "m.png", of=25)
    draw_montage([], plain, tmp_path / "none.png")
    with Image.open(tmp_path / "m.png") as sheet, Image.open(tmp_path / "none.png") as empty:
        assert sheet.height - empty.height == 3 * montage._ROW


def test_a_name_that_says_no_format_is_refused(plain, tmp_path):
    with pytest.raises(UsageError, match="its name must end in"):
        draw_montage([], plain, tmp_path / "m.txt")
