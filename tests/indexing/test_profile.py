"""The figures of ``embed --profile`` add up."""

from __future__ import annotations

import time

import pytest

from patchknn.datasets.listing import iter_patches
from patchknn.indexing.features import embed_batches
from patchknn.indexing.profile import Stopwatch
from patchknn.indexing.reading import ReadSettings


def _batches(patches, size):
    return [patches[start : start + size] for start in range(0, len(patches), size)]


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_are_exact_and_shares_are_shares(extractor, image_folder, workers):
    folder = image_folder(23)
    (folder / "A" / "003.png").write_text("not an image")
    patches = list(iter_patches([folder], size=32, mpp=0.5))
    watch = Stopwatch()
    before = time.perf_counter()
    settings = ReadSettings(32, 0.5, workers=workers)
    batches = list(embed_batches(_batches(patches, 4), extractor, settings, watch))
    figures = watch.figures()
    wall = time.perf_counter() - before
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert sum(len(batch.features) for batch in batches) == 22
    # Readers and waiting count what was read for, the encoder what it was given.
    assert figures.reading.patches == figures.stages["waiting"].patches == 23
    assert figures.stages["forward"].patches == 22
    assert len(figures.readers) == max(workers, 1)
    assert sorted(work.patches for work in figures.readers.values()) in ([23], [11, 12])
    assert 0 < figures.seconds <= wall + (before - watch.began)
    spent = sum(work.seconds for work in figures.stages.values())
    assert spent <= figures.seconds
    assert all(0 <= figures.busy(stage) <= 1 for stage in figures.stages)
    assert 0 < figures.busy_readers() <= 1
    assert all(work.seconds <= figures.seconds for work in figures.readers.values())
    if not workers:  # what this process reads, it waits for
        assert figures.reading.seconds <= figures.stages["waiting"].seconds


def test_the_whole_command_prints_each_stage_and_what_limits(embed, write_slide):
    slide = write_slide("s.tif")
    plain, summary = embed(slide, archive="plain")
    assert "limit" not in plain.err
    result, _ = embed(slide, "--profile", archive="profiled")
    lines = result.err.splitlines()
    assert lines[-1].count("limits") == 1
    assert f"profile: {summary['rows']} patches in " in result.err
    for stage in ("reading", "waiting for readers", "forward pass", "taking rows", "indexing"):
        assert sum(line.strip().startswith(stage) for line in lines[:-1]) == 1
    assert "GPU" not in "".join(lines[:-1])
