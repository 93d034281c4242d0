"""``slide compress`` interrupted by a kill, a signal, a full disk, other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from patchknn.wholeslide.grids.grid import list_grids, open_grid

_SLOW = """
import sys, time
from patchknn.encoder.inference import FeatureExtractor
usual = FeatureExtractor.tensor_features
def slow(self, images):
    print("batch", flush=True)
    time.sleep({delay})
    return usual(self, images)
FeatureExtractor.tensor_features = slow
sys.argv = ["patchknn", *sys.argv[1:]]
from patchknn.cli.main import entry
entry()
"""


@pytest.fixture
def slides(write_slide, tmp_path):
    """Four slides of 8 patches, which are 2 batches of 4."""
    for number in range(4):
        write_slide(f"slides/{number}.tif", seed=number, size=128)
    return tmp_path / "slides"


def _start(encoder, slides, grids, *options, delay=0.2):
    line = [
        sys.executable, "-c", _SLOW.format(delay=delay), "slide", "compress", slides,
        "-e", encoder, "-o", grids, "--device", "cpu", "--batch-size", 4, *options,
    ]  # fmt: skip
    return subprocess.Popen(
        list(map(str, line)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        start_new_session=True,
    )


def _wait_for(process, lines):
    """Read on until so many lines came, of batches and of slides that are done."""
    return [process.stdout.readline() for _ in range(lines)]


@pytest.fixture
def assert_whole(patchknn, encoder, slides, ulps_apart):
    """The same command does the rest, and the grids are those of an undisturbed run."""

    def run(folder):
        result = patchknn(
            "slide", "compress", slides, "-e", encoder, "-o", folder, "--batch-size", 4,
            "--device", "cpu", "--workers", 0,
        )  # fmt: skip
        assert result.code == 0, result.err
        return [json.loads(line)["status"] for line in result.out.splitlines()]

    def check(grids, *, skipped):
        assert sorted(run(grids)) == ["done"] * (4 - skipped) + ["skipped"] * skipped
        names = [f"{number}.h5" for number in range(4)]
        assert sorted(path.name for path in grids.iterdir()) == [".jobs", *names]
        undisturbed = grids.with_name("undisturbed")
        run(undisturbed)
        for name in names:
            found, expected = (open_grid(folder / name) for folder in (grids, undisturbed))
            np.testing.assert_array_equal(found.mask, expected.mask)
            assert ulps_apart(found.features, expected.features).max() <= 1

    return check


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 75, "stopped by SIGTERM"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_keeps_what_is_done(  # noqa: PLR0917
    encoder, slides, tmp_path, assert_whole, workers, number, code, said
):
    grids = tmp_path / "grids"
    process = _start(encoder, slides, grids, "--workers", workers)
    _wait_for(process, 4)  # the two batches of a slide, its row, a batch of the next
    os.killpg(process.pid, number)  # as a scheduler does, which tells the readers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert said in err
    assert "Traceback" not in err
    done = list_grids(grids)
    assert 1 <= len(done) < 4
    assert sorted(path.name for path in grids.iterdir()) == [".jobs", *(p.name for p in done)]
    assert_whole(grids, skipped=len(done))


def test_what_a_killed_process_leaves_is_cleared_away(encoder, slides, tmp_path, assert_whole):
    grids = tmp_path / "grids"
    process = _start(encoder, slides, grids, "--workers", 0)
    _wait_for(process, 4)
    process.kill()
    process.communicate()
    assert len(list(grids.glob(".tmp-*"))) == 1
    assert_whole(grids, skipped=1)


def test_many_processes_at_once_do_every_slide_once(encoder, slides, tmp_path, assert_whole):
    grids = tmp_path / "grids"
    processes = [_start(encoder, slides, grids, "--workers", 0) for _ in range(2)]
    rows = []
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        rows += [json.loads(line) for line in out.splitlines() if line != "batch"]
    done = sorted(row["name"] for row in rows if row["status"] == "done")
    assert done == [f"{number}.tif" for number in range(4)]
    assert not (grids / ".claims").exists()
    assert_whole(grids, skipped=4)


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_a_full_disk_is_named_and_keeps_what_is_done(  # noqa: PLR0917
    patchknn, encoder, slides, tmp_path, little_room, container
):
    grids = tmp_path / "grids"
    line = (
        "slide", "compress", slides, "-e", encoder, "-o", grids, "--format", container,
        "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    with little_room(1000):  # room for records, not for a grid
        result = patchknn(*line)
    assert result.code == 1
    assert "File too large" in result.err
    assert str(grids) in result.err
    assert ".tmp-" not in result.err
    assert [path.name for path in grids.iterdir()] == [".jobs"]
    assert patchknn(*line).code == 0
    assert len(list_grids(grids)) == 4
