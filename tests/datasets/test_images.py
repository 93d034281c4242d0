"""Pixels of patches: as they are, resized, cut from slides, and after a change of process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from patchknn.datasets.images import PatchReader, fit, fit_mpp, read_patch
from patchknn.datasets.patches import Patch
from patchknn.errors import InputError
from patchknn.slides.readers import open_slide


def _noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_an_image_of_the_right_size_is_not_touched():
    image = _noise(32, 32)
    assert fit(image, 32) is image


def test_a_long_image_gives_its_middle_without_distortion():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200  # exactly the middle square
    # The antialiasing filter reaches one pixel beyond the cut, hence not the outermost ones.
    assert (fit(image, 20)[:, 1:-1] == 200).all()
    assert (fit(image.transpose(1, 0, 2), 20)[1:-1] == 200).all()


def test_shrinking_is_antialiased_and_enlarging_fills_the_square():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = fit(stripes, 16)[:, 1:-1].astype(int)
    assert np.ptp(inner) < 40
    assert fit(_noise(27, 27), 32).shape == (32, 32, 3)


def test_an_image_of_known_mpp_is_resampled_to_the_target(tmp_path):
    image = _noise(128, 96)
    np.testing.assert_array_equal(fit_mpp(image, 32, 1.0), image[48:80, 32:64])
    half = fit_mpp(image, 32, 0.5)
    exact = np.asarray(Image.fromarray(image[32:96, 16:80]).reduce(2)).astype(float)
    assert np.corrcoef(half.ravel(), exact.ravel())[0, 1] > 0.85
    Image.fromarray(image).save(tmp_path / "i.png")
    patch = Patch("i.png", tmp_path / "i.png", "image", slide_mpp=0.25)
    np.testing.assert_array_equal(read_patch(patch, 32, 0.5), half)
    np.testing.assert_array_equal(read_patch(patch, 32, None), fit(image, 32))


def test_an_image_that_covers_too_little_is_refused_by_name(tmp_path):
    Image.fromarray(_noise(32, 32)).save(tmp_path / "small.png")
    patch = Patch("small.png", tmp_path / "small.png", "image", slide_mpp=0.25)
    with pytest.raises(InputError, match=r"small\.png covers 16 × 16 px .* less than the 32 × 32"):
        read_patch(patch, 32, 0.5)


def test_patches_of_slides_are_the_readers_alone_or_together(tmp_path, write_slide):
    paths = [write_slide(tmp_path / f"{name}.tif", seed=name) for name in range(3)]
    patches = [
        Patch(path.name, path, "slide", x, y)
        for path in paths
        for y in (0, 48)
        for x in (0, 40, 80)
    ]
    with PatchReader(32, 0.8, open_slides=2) as reader:
        together = reader.read_all(patches)
        alone = [reader.read(patch) for patch in patches]
    for patch, one, other in zip(patches, together, alone, strict=True):
        with open_slide(patch.path) as slide:
            expected = slide.read_patch(patch.x, patch.y, 32, 0.8)
        np.testing.assert_array_equal(other, expected)
        assert np.abs(one.astype(int) - expected).max() <= 1  # resampled from a wider read


def test_a_bad_patch_among_good_ones_is_an_error_of_its_own(tmp_path, write_png, write_slide):
    good = write_png(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("this is text")
    slide = write_slide(tmp_path / "s.tif", mpp=None)
    with PatchReader(32, 0.5) as reader:
        results = reader.read_all(
            [
                Patch("good.png", good, "image"),
                Patch("text.png", tmp_path / "text.png", "image"),
                Patch("s.tif", slide, "slide", 0, 0),
                Patch("s.tif", slide, "slide", 0, 0),
                Patch("s.tif", slide, "slide", 0, 0, slide_mpp=0.5),
            ]
        )
    assert [isinstance(result, np.ndarray) for result in results] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert "text.png is not an image" in str(results[1])
    assert "--slide-mpp" in str(results[2])


def test_a_reader_travels_to_another_process_without_its_handles(tmp_path, write_slide):
    slide = write_slide(tmp_path / "s.tif")
    patch = Patch("s.tif", slide, "slide", 0, 0)
    with PatchReader(32, 0.5) as reader:
        before = reader.read(patch)
        copy = pickle.loads(pickle.dumps(reader))
        np.testing.assert_array_equal(copy.read(patch), before)


@pytest.mark.parametrize("kind", ["CMYK", "I;16", "P", "RGBA", "L", "1"])
def test_every_way_of_storing_pixels_gives_rgb(tmp_path, kind):
    grey = Image.fromarray(_noise(32, 32)[:, :, 0])
    if kind == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = Image.fromarray(_noise(32, 32)).convert(kind)
    file = tmp_path / ("x.tif" if kind == "CMYK" else "x.png")
    image.save(file)
    pixels = read_patch(Patch("x", file, "image"), 32, None)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 100
