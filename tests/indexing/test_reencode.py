"""The same patches under another network: embedded again from the images that are there."""

from __future__ import annotations

import shutil
from io import BytesIO

from PIL import Image

from patchknn.archive.choice import Choice
from patchknn.archive.listing import list_rows
from patchknn.archive.relabel import Correction, relabel_patches
from patchknn.archive.remove import remove_rows
from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive


def _rows(path):
    return {r.id: (r.label, r.patient) for r in list_rows(open_archive(path))}


def test_images_and_slides_are_embedded_again(  # noqa: PLR0917
    patchknn, embed, image_folder, write_slide, other_encoder, tmp_path
):
    folder = image_folder(3)
    write_slide("data/s.tif")
    embed(folder, "--thumbnails", 8)
    old, new = tmp_path / "archive", tmp_path / "new"
    tile = next(row.id for row in list_rows(open_archive(old)) if row.x > 0)
    remove_rows(old, Choice(ids=[tile, "A/000.png"]))
    relabel_patches(old, {"B/001.png": Correction("MUC")})
    (folder / "C" / "002.png").rename(tmp_path / "002.png")
    command = ("archive", "reencode", old, new, "--encoder", other_encoder, "--device", "cpu")
    result = patchknn(*command, "--workers", 0)
    assert result.code == 3
    assert "002.png" in result.err
    wanted = _rows(old)
    assert {"C/002.png": wanted["C/002.png"], **_rows(new)} == wanted
    assert _rows(new)["B/001.png"][0] == "MUC"
    assert tile not in _rows(new)
    assert verify_archive(new) == []
    (pictures,) = {
        Image.open(BytesIO(shard.thumbnail(0))).size for shard in open_archive(new).shards
    }
    assert pictures == (8, 8)
    (tmp_path / "elsewhere" / "C").mkdir(parents=True)
    shutil.move(tmp_path / "002.png", tmp_path / "elsewhere" / "C")
    result = patchknn(*command, "--workers", 0, "--slides", tmp_path / "elsewhere")
    assert result.code == 0, result.err
    assert _rows(new) == wanted
