from itertools import combinations

import pytest

from patchknn.slides.class_colours import OKABE_ITO, UNKNOWN, class_colour


def test_first_classes_have_the_palette_itself() -> None:
    assert [class_colour(number) for number in range(7)] == list(OKABE_ITO)


def test_twenty_one_classes_differ_visibly() -> None:
    colours = [class_colour(number) for number in range(21)] + [UNKNOWN]
    for one, other in combinations(colours, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 40


def test_further_classes_have_a_colour_too() -> None:
    assert class_colour(21) == class_colour(0)
    assert class_colour(-1) == UNKNOWN


@pytest.mark.parametrize("number", [0, 8, 16, 100])
def test_colours_are_bytes(number: int) -> None:
    assert all(isinstance(part, int) and 0 <= part <= 255 for part in class_colour(number))
