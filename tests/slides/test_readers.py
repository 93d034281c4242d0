"""Patches have the µm/px that was asked for, whoever reads the slide."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from patchknn.errors import InputError
from patchknn.slides.readers import is_slide, open_slide


def _resized(rgb, ratio):
    """Oracle: the whole image at once, by Pillow."""
    size = (int(rgb.shape[1] / ratio), int(rgb.shape[0] / ratio))
    box = (0, 0, size[0] * ratio, size[1] * ratio)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, box=box))


def test_level_zero_pixels_are_read_as_they_are(write_slide, tissue_image):
    with open_slide(write_slide("a.tif", tissue_image)) as slide:
        assert slide.reader == "openslide"
        assert slide.dimensions == (1536, 1280)
        assert slide.mpp == pytest.approx(0.5, rel=1e-4)
        patch = slide.read_patch(301, 77, 100, None)
        np.testing.assert_array_equal(patch, tissue_image[77:177, 301:401])
        np.testing.assert_array_equal(slide.read_patch(301, 77, 100, 0.5), patch)


@pytest.mark.parametrize("target", [0.7, 0.9, 1.3])
def test_a_patch_is_resampled_exactly_not_taken_from_a_near_level(
    write_slide, tissue_image, target
):
    whole = _resized(tissue_image, target / 0.5).astype(int)
    with open_slide(write_slide("a.tif", tissue_image, levels=(1,))) as slide:
        for column, row in [(0, 0), (50, 100), (300, 260)]:  # multiples of 10 are whole pixels
            x, y = round(column * target / 0.5), round(row * target / 0.5)
            patch = slide.read_patch(x, y, 64, target).astype(int)
            expected = whole[row : row + 64, column : column + 64]
            assert np.abs(patch - expected)[1:, 1:].max() <= 1


def test_the_field_of_view_is_the_targets(write_slide):
    # A white line every 100 µm on black: the patch shows as many as it spans.
    rgb = np.zeros((64, 2000, 3), np.uint8)
    rgb[:, ::400] = 255
    rgb[:, 1::400] = 255
    with open_slide(write_slide("a.tif", rgb, mpp=0.25, levels=(1,))) as slide:
        row = slide.read_patch(0, 0, 600, 0.8)[5, :, 0].astype(int)
    peaks = np.flatnonzero((row[1:-1] > 40) & (row[1:-1] >= row[:-2]) & (row[1:-1] > row[2:])) + 1
    inside = peaks[peaks < 600]
    assert np.abs(np.diff(inside) - 100 / 0.8).max() <= 1


@pytest.mark.parametrize(("target", "level"), [(0.25, 0), (0.49, 0), (0.5, 1), (0.6, 1), (1, 2)])
def test_the_nearest_finer_level_serves(write_slide, tissue_image, target, level):
    path = write_slide("a.tif", tissue_image, mpp=0.25, levels=(1, 2, 4))
    with open_slide(path) as slide:
        assert slide.level_for(target) == level


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    target=st.sampled_from([0.5, 0.51, 0.77, 1.0, 1.9]),
    corner=st.tuples(st.integers(-80, 400), st.integers(-80, 1300)),
    size=st.integers(8, 70),
    count=st.integers(1, 5),
)
def test_a_patch_is_the_same_alone_and_cut_from_its_row(tissue_slide, target, corner, size, count):
    step = round(size * target / 0.5)
    corners = [(corner[0] + i * step, corner[1]) for i in range(count)]
    together = list(tissue_slide.read_patches(corners, size, target))
    for place, patch in zip(corners, together, strict=True):
        alone = tissue_slide.read_patch(*place, size, target)
        assert np.abs(patch.astype(int) - alone.astype(int)).max() <= 1


@pytest.fixture(scope="module")
def tissue_slide(tissue_image, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "a.tif"
    tifffile.imwrite(
        path, tissue_image, tile=(256, 256), resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
    )
    with open_slide(path) as slide:
        yield slide


def test_read_patches_keeps_the_order_it_was_given(tissue_slide):
    corners = [(512, 256), (0, 0), (256, 0), (256, 256), (100, 0)]
    for corner, patch in zip(corners, tissue_slide.read_patches(corners, 64, None), strict=True):
        np.testing.assert_array_equal(patch, tissue_slide.read_patch(*corner, 64, None))


def test_off_slide_is_white(tissue_slide, tissue_image):
    patch = tissue_slide.read_patch(1536 - 40, -24, 64, None)
    assert (patch[:24] == 255).all()
    assert (patch[:, 40:] == 255).all()
    np.testing.assert_array_equal(patch[24:, :40], tissue_image[:40, 1496:])
    assert (tissue_slide.read_patch(9000, 9000, 32, 1.0) == 255).all()


def test_flat_images_and_slides_give_the_same_patch(write_slide, tissue_image, tmp_path):
    Image.fromarray(tissue_image).save(tmp_path / "flat.png")
    with (
        open_slide(write_slide("a.tif", tissue_image)) as tiled,
        open_slide(tmp_path / "flat.png", slide_mpp=0.5) as flat,
    ):
        assert flat.reader == "pillow"
        difference = tiled.read_patch(-5, 40, 90, 0.8).astype(int) - flat.read_patch(
            -5, 40, 90, 0.8
        )
        assert np.abs(difference).max() <= 1


def test_an_overview_read_in_blocks_is_the_whole_slide(write_slide, tissue_image, monkeypatch):
    from patchknn.slides import readers

    with open_slide(write_slide("a.tif", tissue_image)) as slide:
        whole = slide.read_overview(8.0)
        assert whole.shape == (80, 96, 3)
        monkeypatch.setattr(readers, "_MAX_BLOCK_PX", 200)
        blocks = slide.read_overview(8.0)
        in_threads = slide.read_overview(8.0, threads=3)
    assert np.abs(whole.astype(int) - blocks).max() <= 1
    np.testing.assert_array_equal(in_threads, blocks)


# Which reader


def test_openslide_refuses_a_strip_tiff_and_tifffile_reads_it(tmp_path, tissue_image):
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, tissue_image, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    with open_slide(path) as slide:
        assert (slide.reader, slide.mpp) == ("tifffile", pytest.approx(0.5))
        np.testing.assert_array_equal(slide.read_patch(9, 8, 50, None), tissue_image[8:58, 9:59])


@pytest.mark.parametrize(("planes", "reader"), [("contig", "tiffslide"), ("separate", "openslide")])
def test_an_ome_tiff_with_levels_in_subifds(tmp_path, tissue_image, planes, reader):
    path = tmp_path / "a.ome.tif"
    stored = tissue_image if planes == "contig" else np.moveaxis(tissue_image, 2, 0)
    half = tissue_image[::2, ::2] if planes == "contig" else stored[:, ::2, ::2]
    options = {"photometric": "rgb", "tile": (128, 128), "planarconfig": planes}
    size = {f"PhysicalSize{axis}": 325 for axis in "XY"}
    unit = {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(stored, subifds=1, metadata={**size, **unit}, **options)
        writer.write(half, subfiletype=1, **options)
    assert openslide.OpenSlide(path).level_count == 1
    with open_slide(path) as slide:
        assert slide.reader == reader
        assert slide.mpp == pytest.approx(0.325)
        patch = slide.read_patch(1500, 9, 50, None)
        np.testing.assert_array_equal(patch[:, :36], tissue_image[9:59, 1500:])
        assert (patch[:, 36:] == 255).all()


def test_tiffs_count_as_slides_when_tiled_large_or_pyramidal(write_slide, tmp_path, tissue_image):
    small, long_strip = tmp_path / "small.tif", tmp_path / "long.tif"
    tifffile.imwrite(small, tissue_image[:100, :100])
    tifffile.imwrite(long_strip, np.zeros((10, 3000, 3), np.uint8))
    (tmp_path / "text.tif").write_text("no")
    assert is_slide(write_slide("a.tif", tissue_image))
    assert is_slide(long_strip)
    assert not is_slide(small)
    assert not is_slide(tmp_path / "text.tif")
    assert not is_slide(tmp_path / "a.png")
    assert is_slide(tmp_path / "A.SVS")


# µm per pixel


def test_a_72_dpi_tag_is_taken_as_wrong_and_said_so(write_slide, tissue_image):
    path = write_slide("a.tif", tissue_image, mpp=25400 / 72)
    with open_slide(path) as slide:
        assert slide.mpp is None
        with pytest.raises(InputError, match=r"a\.tif says 352\.8 µm/px.*--default-mpp"):
            slide.require_mpp()
    with open_slide(path, default_mpp=0.4) as slide:
        assert slide.mpp == 0.4
        assert "352.8" in slide.mpp_note


def test_the_override_goes_before_the_slides_own_and_the_default_after(write_slide, tissue_image):
    known, unknown = (
        write_slide("a.tif", tissue_image),
        write_slide("b.tif", tissue_image, mpp=None),
    )
    assert open_slide(known, default_mpp=0.3).mpp == pytest.approx(0.5, rel=1e-4)
    assert open_slide(known, slide_mpp=0.3, default_mpp=0.4).mpp == 0.3
    assert open_slide(unknown, default_mpp=0.4).mpp == 0.4
    with open_slide(unknown) as slide, pytest.raises(InputError, match=r"b\.tif.*--slide-mpp"):
        slide.read_patch(0, 0, 10, 0.5)
    with pytest.raises(InputError, match=r"outside 0\.05 to 2"):
        open_slide(known, slide_mpp=40.0)


# Bad input


@pytest.mark.parametrize("suffix", [".svs", ".tif", ".ndpi", ".dcm"])
def test_what_is_no_slide_is_one_sentence(tmp_path, suffix):
    path = tmp_path / f"é{suffix}"
    with pytest.raises(InputError, match="does not exist"):
        open_slide(path)
    path.touch()
    with pytest.raises(InputError, match="empty file"):
        open_slide(path)
    path.write_text("not a slide at all" * 50)
    with pytest.raises(InputError, match="not a slide that can be opened") as raised:
        open_slide(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("compression", ["jpeg", None])
def test_a_truncated_slide_never_gives_blank_tiles(write_slide, tissue_image, compression):
    path = write_slide("a.tif", tissue_image, compression=compression, levels=(1,))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError), open_slide(path) as slide:
        slide.read_overview(4.0)


def test_real_fixtures(shared_data):
    folder = shared_data / "wsi"
    with open_slide(folder / "CMU-1-Small-Region.svs") as slide:
        assert (slide.reader, slide.mpp, slide.magnification) == ("openslide", 0.499, 20)
        assert slide.read_patch(900, 900, 64, 0.5).std() > 10
    with open_slide(folder / "OS-1-detail.ome.tif") as slide:
        assert slide.reader == "tifffile"
        assert slide.mpp == pytest.approx(0.2271, abs=1e-4)
    broken = folder / "openslide-python-fixtures" / "unreadable.svs"
    with open_slide(broken) as slide, pytest.raises(InputError, match="cannot be read"):
        slide.read_patch(0, 0, 16, None)
    with pytest.raises(InputError, match="compression"):
        open_slide(folder / "openslide-python-fixtures" / "unopenable.tiff")
    with open_slide(folder / "openslide-python-fixtures" / "boxes_0.dcm") as slide:
        assert slide.mpp == 0.499
