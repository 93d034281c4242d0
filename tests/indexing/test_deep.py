"""A sample embedded again is what is stored, or it is said what is not."""

from __future__ import annotations

import json

import numpy as np

from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter


def test_what_was_embedded_here_is_the_same(patchknn, embed, image_folder, write_slide, tmp_path):
    folder = image_folder(3)
    write_slide("data/s.tif")
    embed(folder)
    archive = tmp_path / "archive"
    result = patchknn("archive", "verify", archive, "--deep", 12, "--device", "cpu")
    assert (result.code, result.out) == (0, ""), result.err
    assert "12 patches embedded again, 0 not to be had" in result.err
    (folder / "A" / "000.png").write_bytes((folder / "B" / "001.png").read_bytes())
    (folder / "C" / "002.png").unlink()
    result = patchknn("archive", "verify", archive, "--deep", 10_000, "--device", "cpu")
    assert result.code == 3
    for name in ("A/000.png", "C/002.png"):
        assert f"{name}: its image is not there any more, or has changed." in result.err


def test_features_of_another_encoder_are_named(patchknn, embed, image_folder, tmp_path):
    folder = image_folder(3)
    embed(folder)
    archive = tmp_path / "archive"
    stored = open_archive(archive)
    rows = stored.shards[0].rows()
    rows.features = rows.features[::-1].copy()  # each is another image's
    rows.codes = stored.bundle().codes(rows.features)
    sources = (s._replace(path=str(folder / s.name)) for s in rows.sources)
    shards = tmp_path / "copy"
    from patchknn.archive.create import create_like

    create_like(shards, stored)
    with ArchiveWriter(shards) as writer:
        writer.add(rows.with_sources(tuple(sources)))
        writer.publish()
    assert not np.array_equal(rows.features, stored.shards[0].features)
    result = patchknn("archive", "verify", shards, "--deep", 3, "--device", "cpu")
    assert result.code == 1
    found = [json.loads(line) for line in result.out.splitlines()]
    assert len(found) == 2  # the middle one is its own
    assert all(one["difference"] > 0.01 for one in found)
