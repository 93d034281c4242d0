"""Settings that cannot be are refused in a sentence that names the option."""

from __future__ import annotations

import pytest

from patchknn.errors import UsageError
from patchknn.search.settings import SearchSettings


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"k": 0}, "--k 0"),
        ({"radius": -1}, "--radius -1"),
        ({"radius": 3, "max_radius": 2}, "--max-radius 2"),
        ({"exclude_same": "case"}, "--exclude-same case"),
        ({"coarse": "faiss"}, "--coarse faiss"),
        ({"max_per": ("site", 2)}, "--max-per site"),
        ({"max_per": ("slide", 0)}, "--max-per slide 0"),
        ({"coarse": "l2", "candidates": 5}, "--candidates 5"),
        ({"min_neighbours": 11}, "--min-neighbours 11"),
        ({"abstain_below": 1.5}, "--abstain-below 1.5"),
    ],
)
def test_what_cannot_be_is_refused(settings, option):
    with pytest.raises(UsageError) as caught:
        SearchSettings(**settings)
    assert str(caught.value).startswith(option)


def test_the_ball_is_widened_to_a_quarter_of_the_bits_but_never_narrowed():
    assert SearchSettings().widest_radius(48) == 12
    assert SearchSettings(radius=20).widest_radius(48) == 20
    assert SearchSettings(max_radius=100).widest_radius(48) == 48


@pytest.mark.parametrize(("k", "needed"), [(1, 1), (9, 5), (10, 5)])
def test_half_of_k_rounded_up_must_vote(k, needed):
    assert SearchSettings(k=k).votes_needed == needed
    assert SearchSettings(k=k, min_neighbours=0).votes_needed == 0
