"""The sentence that says what limits an ``embed`` names what the others waited for."""

from __future__ import annotations

import pytest

from patchknn.cli.embed_profile import limiting
from patchknn.indexing.profile import Figures, Stopwatch, Work


@pytest.mark.parametrize(
    ("slow", "device", "workers", "words"),
    [
        ("waiting", "cuda", 2, "reading limits: the encoder waited 63 % of the time; more --work"),
        ("waiting", "cuda", 0, "reading limits: the encoder waited 63 % of the time; --workers 1"),
        ("waiting", "cuda", 8, "all 8 CPUs read already"),
        ("forward", "cpu", 2, "the encoder limits: it was busy 64 % of the time, a reader 5 %"),
        ("forward", "cuda", 2, "--compile, would help"),
        ("preparing", "cpu", 2, "finding tissue limits: 63 % of the time"),
        ("indexing", "cpu", 2, "the archive limits: 65 % of the time"),
    ],
)
def test_what_takes_the_largest_share_limits(slow, device, workers, words):
    stages = {stage: Work(0.1, 5) for stage in Stopwatch().stages}
    stages[slow] = Work(6.3, 5)
    figures = Figures(10.0, stages, {1: Work(0.5, 5), 2: Work(0.5, 5)})
    assert words in limiting(figures, device=device, cpus=8, workers=workers)


def test_where_nothing_was_embedded_nothing_limits():
    figures = Stopwatch().figures()
    assert figures.limit() == "nothing"
    assert limiting(figures, device="cpu", cpus=2, workers=1).startswith("nothing was embedded")
