import numpy as np

from patchknn.simulate.canvas import Stains
from patchknn.simulate.stain import Staining, draw_stainings, to_rgb

PLAIN = Staining((0.5, 0.7, 0.4), (0.2, 0.8, 0.5), (240.0, 230.0, 220.0))


def test_colours_follow_beer_and_lambert() -> None:
    amounts = Stains(np.full((300, 300), 0.8, np.float32), np.full((300, 300), 0.5, np.float32))
    image = to_rgb(amounts, PLAIN, np.random.default_rng(0))
    density = 0.8 * np.array(PLAIN.haematoxylin) + 0.5 * np.array(PLAIN.eosin)
    expected = np.array(PLAIN.white) * np.exp(-density)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), expected, atol=0.7)


def test_bare_glass_is_white_and_more_stain_is_darker() -> None:
    amounts = np.linspace(0, 3, 64 * 64, dtype=np.float32).reshape(64, 64)
    image = to_rgb(Stains(amounts, amounts), PLAIN, np.random.default_rng(0)).astype(float)
    assert np.abs(image[0, :8].mean(axis=0) - PLAIN.white).max() < 4
    rows = image.mean(axis=(1, 2))
    assert (np.diff(rows[::4]) < 0).all()


def test_patients_differ_in_intensity_and_in_hue() -> None:
    stainings = draw_stainings(6, np.random.default_rng(2))
    eosin = np.array([entry.eosin for entry in stainings])
    haematoxylin = np.array([entry.haematoxylin for entry in stainings])
    for vectors in (eosin, haematoxylin):
        strength = np.linalg.norm(vectors, axis=1)
        assert strength.max() / strength.min() > 1.3
        directions = vectors / strength[:, None]
        angles = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1)))
        assert angles.max() > 4
