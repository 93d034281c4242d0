"""Whoever reads patches, and however many, batches are the same and in order."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.datasets.listing import iter_patches
from patchknn.datasets.patches import Problem
from patchknn.errors import InputError
from patchknn.indexing.reading import ReadSettings, read_batches


@pytest.fixture
def batches(image_folder, write_slide, tmp_path):
    folder = image_folder(13)
    (folder / "A" / "bad.png").write_text("no image")
    slide = write_slide("s.tif", size=512)
    patches = list(iter_patches([folder, slide], size=32, mpp=0.5))
    items = [*patches[:5], Problem("gone", "it is gone."), *patches[5:]]
    return [items[start : start + 4] for start in range(0, len(items), 4)]


@pytest.mark.parametrize(("workers", "threads"), [(0, True), (1, True), (3, True), (2, False)])
def test_threads_and_processes_read_what_this_process_does(batches, workers, threads):
    plain = list(read_batches(iter(batches), ReadSettings(32, 0.5, thumbnail_px=16), 1.0))
    settings = ReadSettings(32, 0.5, thumbnail_px=16, workers=workers, threads=threads)
    others = list(read_batches(iter(batches), settings, 1.0))
    assert len(plain) == len(others) == len(batches)
    for one, other in zip(plain, others, strict=True):
        assert one.errors == other.errors
        assert one.thumbnails == other.thumbnails
        np.testing.assert_array_equal(one.images.numpy(), other.images.numpy())
    errors = [error for one in others for error in one.errors if error is not None]
    assert len(errors) == 2
    assert "it is gone." in errors


def test_threads_draw_a_few_batches_ahead(batches):
    drawn = []

    def watched():
        for batch in batches:
            drawn.append(batch)
            yield batch

    reads = read_batches(watched(), ReadSettings(32, 0.5, workers=2, threads=True), 1.0)
    next(reads)
    assert 1 < len(drawn) < len(batches)
    reads.close()
    assert len(drawn) < len(batches)


def test_what_goes_wrong_with_the_batches_is_raised(batches):
    def failing():
        yield batches[0]
        message = "the list ends here."
        raise InputError(message)

    reads = read_batches(failing(), ReadSettings(32, 0.5, workers=2, threads=True), 1.0)
    with pytest.raises(InputError, match="the list ends here"):
        list(reads)
