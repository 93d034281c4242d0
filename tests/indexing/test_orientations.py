"""Features that are means over orientations: in the archive, and of whatever is put to it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from patchknn.archive.snapshot import open_archive

_ANSWER = ("--k", 1, "--exclude-same", "none", "--device", "cpu", "--workers", 0)


@pytest.fixture
def archive(embed, image_folder, tmp_path):
    """Nine images in means over eight orientations."""
    result, summary = embed(image_folder(9), "--orientations", 8)
    assert (result.code, summary["rows"]) == (0, 9)
    return tmp_path / "archive"


@pytest.fixture
def turned(tmp_path):
    """The same nine, each in another of its orientations."""
    for number in range(9):
        path = tmp_path / "turned" / "ABC"[number % 3] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.array(Image.open(tmp_path / "data" / path.relative_to(tmp_path / "turned")))
        pixels = np.rot90(pixels, number % 4)
        Image.fromarray(pixels[:, ::-1] if number > 3 else pixels).save(path)
    return tmp_path / "turned"


def test_how_a_query_lies_does_not_matter(archive, embed, turned, patchknn, tmp_path):
    def answers(archive):
        result = patchknn("query", archive, turned, *_ANSWER)
        assert result.code == 0, result.err
        return [json.loads(line)["neighbours"][0] for line in result.out.splitlines()]

    found = answers(archive)
    names = [f"{'ABC'[number % 3]}/{number:03}.png" for number in range(9)]
    assert sorted(neighbour["id"] for neighbour in found) == sorted(names)
    farthest = max(neighbour["l2"] for neighbour in found)
    embed(tmp_path / "data", archive="plain")
    plain = sorted(neighbour["l2"] for neighbour in answers(tmp_path / "plain"))
    assert farthest < 0.1 * plain[1]  # what is left is float16's; one image lies as it did
    result = patchknn("evaluate", archive, turned, *_ANSWER, "--format", "ndjson")
    assert json.loads(result.out)["accuracy"] == 1.0


def test_what_is_added_is_averaged_too_and_another_number_is_refused(
    archive, embed, image_folder, patchknn
):
    more = image_folder(3, "more", first=9)
    result, _ = embed(more, "--orientations", 4)
    assert result.code == 1
    assert "orientations 8 (asked for: 4)" in result.err
    result, summary = embed(more)
    assert (result.code, summary["rows"]) == (0, 3)
    result = patchknn("archive", "info", archive, "--format", "ndjson")
    assert json.loads(result.out)["orientations"] == 8
    features = {}
    for number in range(12):
        row = open_archive(archive).row(number)
        shard, local = open_archive(archive).shard_of(number)
        features[row.id] = shard.features[local]
    assert len(features) == 12
    # As if all had come at once.
    embed(more.parent / "data", more, "--orientations", 8, archive="once")
    once = open_archive(archive.parent / "once")
    for number in range(12):
        shard, local = once.shard_of(number)
        np.testing.assert_allclose(
            shard.features[local], features[once.row(number).id], rtol=2e-3, atol=1e-3
        )


def test_three_orientations_are_wrong_usage(embed, image_folder, tmp_path):
    result, _ = embed(image_folder(1), "--orientations", 3)
    assert result.code == 2
    assert "3" in result.err
    assert not (tmp_path / "archive").exists()
