"""Rows on disk are fetched together, also where the system does not say what is in memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from patchknn.hamming import kernels

# Run as another user than the file's owner: scattered rows of its second half, read by the table,
# after those of its first half, read by nothing but page faults. Prints the waits of both.
_READER = """
import mmap, os, resource, sys
import numpy as np
from patchknn.hamming import kernels
from patchknn.hamming.feature_table import FeatureTable

def waits():
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt

kernels.chosen()
name, user = sys.argv[1], int(sys.argv[2])
descriptor = os.open(name, os.O_RDONLY)
if user:
    os.setgroups([])
    os.setresuid(user, user, user)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
features = np.frombuffer(mapped, np.float16).reshape(-1, 512)
half = len(features) // 2
before = waits()
for row in range(half - 4096, -1, -4096):
    float(features[row, 0])
faults = waits() - before
starts = np.arange(half, len(features), 4096)
table = FeatureTable([features])
before = waits()
positions, distances, _ = table.nearest(np.zeros(512), starts, starts + 1, 3)
print(faults, waits() - before, *positions)
# Arrays that overlap: by their ends, a row of the first is not found in it after one of the last.
table = FeatureTable([features[:half], features[10:20], features[half:]])
starts = np.append(starts + 10, [half - 50, 0])  # which are zeros
positions, distances, _ = table.nearest(np.zeros(512), starts, starts + 1, 3)
print(*positions)
"""


@pytest.mark.skipif(len(kernels.available()) < 2, reason="the kernels are not there")
@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the page cache cannot be emptied")
@pytest.mark.parametrize("user", [0, 65534])
def test_scattered_rows_on_disk_are_fetched_together(tmp_path, user):
    if user and os.geteuid():
        pytest.skip("only root can become another user")
    rows = np.arange(1 << 19, 1 << 20, 4096)
    features = np.random.default_rng(0).normal(size=(len(rows), 512)).astype(np.float16)
    path = tmp_path / "features"
    with path.open("wb") as file:  # 1 GiB, hardly any of which takes room
        file.truncate(1 << 30)
        for row, values in zip(rows.tolist(), features, strict=True):
            file.seek(1024 * row)
            file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
    finished = subprocess.run(
        [sys.executable, "-c", _READER, str(path), str(user)],
        capture_output=True,
        text=True,
        check=True,
    )
    first, again = finished.stdout.splitlines()
    faults, waits, *positions = map(int, first.split())
    if faults < 20:
        pytest.skip("the file does not leave memory here")
    assert waits < faults / 4
    exact = np.linalg.norm(features.astype(np.float64), axis=1)
    assert positions == rows[np.argsort(exact)[:3]].tolist()
    assert list(map(int, again.split())) == [0, (1 << 19) - 50, positions[0] + 10]
