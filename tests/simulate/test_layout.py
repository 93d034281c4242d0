import numpy as np
import pytest

from patchknn.simulate.annotations import geojson
from patchknn.simulate.classes import CLASS_NAMES
from patchknn.simulate.layout import draw_layout


def shoelace(outline: np.ndarray) -> float:
    x, y = outline.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.mark.parametrize("size_px", [384, 2048])
def test_every_class_has_a_region_inside_the_slide(size_px: int) -> None:
    regions = draw_layout(size_px, 0.5, np.random.default_rng(3))
    assert {region.label for region in regions} == set(CLASS_NAMES)
    points = np.concatenate([region.outline for region in regions])
    assert points.min() >= 0
    assert points.max() <= size_px


def test_regions_fit_together_without_gap_or_overlap() -> None:
    from PIL import Image, ImageDraw

    regions = draw_layout(1024, 0.5, np.random.default_rng(5))
    covered = np.zeros((1024, 1024), np.int64)
    for region in regions:
        image = Image.new("L", (1024, 1024), 0)
        ImageDraw.Draw(image).polygon(region.outline.ravel().tolist(), fill=1)
        covered += np.asarray(image)
    area = sum(shoelace(region.outline) for region in regions)
    # Pillow paints border pixels on both sides: only they may be covered twice.
    assert (covered > 1).mean() < 0.04
    assert (covered > 0).sum() == pytest.approx(area, rel=0.02)


def test_no_class_is_rare() -> None:
    labels = [region.label for region in draw_layout(2048, 0.5, np.random.default_rng(0))]
    counts = [labels.count(name) for name in CLASS_NAMES]
    assert max(counts) - min(counts) <= 1


def test_geojson_is_what_qupath_reads() -> None:
    rng = np.random.default_rng(1)
    regions = draw_layout(512, 0.5, rng)
    collection = geojson(regions, rng)
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == len(regions)
    for feature, region in zip(collection["features"], regions, strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == region.label
    assert len({feature["id"] for feature in collection["features"]}) == len(regions)
