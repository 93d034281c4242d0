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


def _picture(height, width, seed=0):
    """Noise without what only resampling can tell apart: neighbours are alike."""
    small = Image.fromarray(_noise(height // 8 + 2, width // 8 + 2, seed))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 450), (375, 300), (64, 96)])
def test_a_crop_is_resizing_and_cutting_out_the_middle(height, width):
    image = _picture(height, width)
    longer = 256 * max(height, width) // min(height, width)  # whole for all of these
    size = (longer, 256) if width > height else (256, longer)
    resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    assert np.abs(fit(image, 224, 0.875) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("shape", "corner"), [((256, 256), (16, 16)), ((257, 256), (16, 16))])
def test_a_crop_of_an_image_that_has_the_pixels_already_is_exact(shape, corner):
    image = _noise(*shape)
    top, left = corner
    np.testing.assert_array_equal(fit(image, 224, 0.875), image[top : top + 224, left : left + 224])
    long = _noise(32, 77)
    np.testing.assert_array_equal(fit(long, 32), long[:, 22:54])


@pytest.mark.parametrize("crop", [0.0, -0.5, 1.01, float("nan")])
def test_a_crop_that_is_no_share_is_refused(crop):
    with pytest.raises(ValueError, match="no share of a side"):
        fit(_noise(8, 8), 8, crop)


def test_only_plain_images_without_mpp_are_cropped(tmp_path, write_slide):
    slide = write_slide(tmp_path / "s.tif")
    Image.fromarray(_noise(128, 128)).save(tmp_path / "i.png")
    patches = [
        Patch("s.tif", slide, "slide", 8, 16),
        Patch("i.png", tmp_path / "i.png", "image", slide_mpp=0.25),
        Patch("i.png", tmp_path / "i.png", "image"),
    ]
    with PatchReader(32, 0.5) as whole, PatchReader(32, 0.5, crop=0.5) as cropping:
        for patch, equal in zip(patches, [True, True, False], strict=True):
            assert np.array_equal(whole.read(patch), cropping.read(patch)) == equal
        image = _noise(128, 128)
        np.testing.assert_array_equal(cropping.read(patches[2]), fit(image, 32, 0.5))
        np.testing.assert_array_equal(cropping.read_all(patches)[2], fit(image, 32, 0.5))


def _middle(pixels, size):
    start = (len(pixels) - size) // 2
    return pixels[start : start + size, start : start + size].astype(int)


@pytest.mark.parametrize("mpp", [None, 0.5, 0.8, 1.3])
def test_the_middle_of_what_is_read_around_a_slides_patch_is_the_patch(tmp_path, write_slide, mpp):
    slide = write_slide(tmp_path / "s.tif")
    patches = [Patch("s.tif", slide, "slide", x, 64) for x in (0, 40, 80)]
    with PatchReader(32, mpp) as reader, PatchReader(32, mpp, read_size=45) as wide:
        together = wide.read_all(patches)
        for patch, among in zip(patches, together, strict=True):
            alone = wide.read(patch)
            assert alone.shape == among.shape == (45, 45, 3)
            assert np.abs(_middle(alone, 32) - reader.read(patch)).max() <= 1
            assert np.abs(_middle(among, 32) - reader.read(patch)).max() <= 1
        assert (together[0][8:, :2] == 255).all()  # beyond the slide's left edge
        assert (together[1][:, :2] < 255).any()


@pytest.mark.parametrize(("mpp", "side"), [(None, 100), (None, 256), (0.5, 300), (0.5, 90)])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.5])
def test_the_middle_of_what_is_read_around_an_images_patch_is_the_patch(tmp_path, mpp, side, crop):
    Image.fromarray(_picture(side, side + 10)).save(tmp_path / "i.png")
    patch = Patch("i.png", tmp_path / "i.png", "image", slide_mpp=0.25 if mpp else None)
    with (
        PatchReader(42, mpp, crop=crop) as reader,
        PatchReader(42, mpp, crop=crop, read_size=48) as wide,
    ):
        pixels = wide.read(patch)
        assert pixels.shape == (48, 48, 3)
        assert np.abs(_middle(pixels, 42) - reader.read(patch)).max() <= 1
        if mpp is None and crop == 0.875:
            np.testing.assert_array_equal(pixels, fit(_picture(side, side + 10), 48))


def test_where_an_image_ends_its_mirror_image_goes_on(tmp_path):
    image = _noise(32, 32)
    Image.fromarray(image).save(tmp_path / "i.png")
    plain = Patch("i.png", tmp_path / "i.png", "image")
    known = Patch("i.png", tmp_path / "i.png", "image", slide_mpp=0.5)
    expected = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    with PatchReader(32, 0.5, read_size=40) as reader:
        np.testing.assert_array_equal(reader.read(plain), expected)
        np.testing.assert_array_equal(reader.read(known), expected)
    with PatchReader(28, 0.5, read_size=40) as reader:
        np.testing.assert_array_equal(reader.read(known), expected)


def test_less_than_the_patch_is_not_read():
    with pytest.raises(ValueError, match="read_size 31 is less than the 32 px"):
        PatchReader(32, None, read_size=31)
