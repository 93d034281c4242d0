"""Plain images of every kind become RGB, or one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchknn.errors import InputError
from patchknn.slides import pixels
from patchknn.slides.images import read_image
from patchknn.slides.pixels import image_on_white, on_white

RGB = np.random.default_rng(1).integers(0, 256, (12, 17, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def _save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options) if mode else Image.fromarray(array).save(
        path, **options
    )
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
def test_rgb_comes_back_as_it_was(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    path = _save(tmp_path / f"a{suffix}", RGB, **options)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_grey_is_repeated(tmp_path):
    image = read_image(_save(tmp_path / "a.png", GREY))
    np.testing.assert_array_equal(image, np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_by_its_full_range_not_clipped(tmp_path, suffix):
    path = _save(tmp_path / f"a{suffix}", GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path)[:, :, 1], GREY)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bit_rgb_tiff(tmp_path, planar):
    path = tmp_path / "a.tif"
    values = RGB.astype(np.uint16) * 257
    stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))
    image.save(tmp_path / "b.png", transparency=0)
    hidden = np.asarray(image) == 0
    assert (read_image(tmp_path / "b.png")[hidden] == 255).all()


def test_transparent_pixels_lie_on_white(tmp_path):
    alpha = np.zeros((12, 17, 1), np.uint8)
    alpha[:6] = 255
    alpha[6:8] = 128
    image = read_image(_save(tmp_path / "a.png", np.concatenate([RGB, alpha], axis=2)))
    np.testing.assert_array_equal(image[:6], RGB[:6])
    assert (image[8:] == 255).all()
    share = 128 / 255
    expected = RGB[6:8] * share + 255 * (1 - share)
    np.testing.assert_allclose(image[6:8], expected, atol=0.51)


def test_cmyk_becomes_rgb(tmp_path):
    flat = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg"), flat, atol=4)


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == RGB.shape


def test_a_name_that_is_not_ascii(tmp_path):
    np.testing.assert_array_equal(read_image(_save(tmp_path / "né😐.png", RGB)), RGB)


def _truncated(path):
    _save(path, np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("gone.png", lambda path: None, "does not exist"),
        ("empty.png", lambda path: path.touch(), "is an empty file"),
        ("text.png", lambda path: path.write_text("no picture"), "is not an image"),
        ("text.tif", lambda path: path.write_text("no picture"), "is not an image"),
        ("half.png", _truncated, "truncated"),
        ("half.jpg", _truncated, "truncated"),
        ("half.tif", _truncated, "truncated"),
        ("folder.png", lambda path: path.mkdir(), "is a folder"),
        (
            "float.tif",
            lambda path: tifffile.imwrite(path, np.ones((8, 8), np.float32)),
            "8-bit RGB",
        ),
        (
            "channels.tif",
            lambda path: tifffile.imwrite(
                path, np.ones((5, 8, 8), np.uint16), metadata={"axes": "CYX"}, ome=True
            ),
            "not RGB",
        ),
    ],
)
def test_what_is_no_image_is_said_in_one_sentence_that_names_it(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(InputError) as raised:
        read_image(tmp_path / name)
    text = str(raised.value)
    assert text.startswith(str(tmp_path / name))
    assert words in text
    assert "\n" not in text


def test_a_large_scan_is_no_bomb_and_a_monstrous_one_is_refused_unread(tmp_path, monkeypatch):
    path = _save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(path).shape == RGB.shape
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(pixels, "MAX_FLAT_PIXELS", 100)
    with pytest.raises(InputError, match="tiled TIFF"):
        read_image(path)


def test_a_file_with_the_suffix_of_another_format_is_read_by_its_content(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.tif", format="PNG")
    assert np.array_equal(read_image(tmp_path / "a.tif"), RGB)


def test_an_image_on_white_is_what_its_array_on_white_is():
    values, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([values, values[::-1], values[:, ::-1], alpha], axis=2).astype(np.uint8)
    weight = rgba[:, :, 3:].astype(float) / 255
    literal = np.rint(rgba[:, :, :3] * weight + 255 * (1 - weight))
    np.testing.assert_array_equal(np.asarray(image_on_white(Image.fromarray(rgba))), literal)
    np.testing.assert_array_equal(on_white(rgba), literal)
