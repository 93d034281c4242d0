"""Miniature pictures and tables for the scripts of examples/reproduce/."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """``picture(number, pixels)``: noise about the colour of a class, by number."""

    def drawn(number, pixels=32):
        random = np.random.default_rng(number)
        colour = np.array([40 + 80 * (number % 3), 120, 220 - 80 * (number % 3)])
        noisy = colour + random.normal(0, 40, (pixels, pixels, 3))
        return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))

    return drawn


@pytest.fixture
def save(picture):
    """``save(path, number, pixels)``: such a picture as a file."""

    def saved(path, number, pixels=32):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, pixels).save(path)

    return saved


@pytest.fixture
def write_table():
    """``write_table(path, rows)``: a CSV."""

    def written(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    return written


@pytest.fixture
def read_table():
    """``read_table(path)``: its rows as dictionaries."""

    def read(path):
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return read
