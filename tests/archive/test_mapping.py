"""Arrays in place: whatever the offset, and gone with their last view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchknn.archive import mapping
from patchknn.archive.mapping import map_array


@pytest.fixture(params=["library", "mmap"])
def file(request, tmp_path, monkeypatch):
    """100 000 bytes; mapped by the C library, and as where there is none."""
    if request.param == "mmap":
        monkeypatch.setattr(mapping, "_LIBRARY", None)
    path = tmp_path / "bytes"
    np.arange(12_500, dtype="<u8").tofile(path)
    return path


@pytest.mark.parametrize("offset", [0, 8, 4096, 65536, 99_992, 50_000])
def test_an_array_is_what_the_file_holds(file, offset):
    count = (100_000 - offset) // 8
    values = map_array(file, "<u8", (count, 1), offset)
    assert np.array_equal(values[:, 0], np.arange(offset // 8, 12_500))
    assert not values.flags.writeable
    assert map_array(str(file), "|u1", (3,), 3).tolist() == [0, 0, 0]


def test_a_file_that_ends_before_the_array_is_refused(file):
    with pytest.raises(ValueError, match="ends before byte 100008"):
        map_array(file, "<u8", (12_501,))
    with pytest.raises(ValueError, match="ends before"):
        map_array(file, "<u8", (1,), 99_993)
    assert map_array(file, "<u8", (0, 5)).shape == (0, 5)
    with pytest.raises(FileNotFoundError):
        map_array(file.with_name("absent"), "<u8", (1,))


def test_a_view_keeps_the_mapping_and_nothing_else_does(file):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc here")

    def mapped():
        return sum(str(file) in line for line in maps.read_text().splitlines())

    whole = map_array(file, "<u8", (12_500,))
    part = whole[1000:2000:3]
    del whole
    assert mapped() == 1
    assert part[1] == 1003
    del part
    assert mapped() == 0
