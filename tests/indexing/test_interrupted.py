"""``embed`` interrupted: a full disk, a kill, a signal, other processes; nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from patchknn.archive.verify import verify_archive
from patchknn.jobs.claims import Claims


def _assert_same(rows, others):
    """The same rows and labels; features within one unit in the last place of float16."""
    assert rows.keys() == others.keys()
    for key, (feature, _, *words) in rows.items():
        found, expected = (
            np.frombuffer(f, np.int16).astype(int) for f in (feature, others[key][0])
        )
        assert np.abs(found - expected).max() <= 1
        assert words == list(others[key][2:])


def test_a_full_disk_keeps_what_was_published(embed, image_folder, tmp_path, monkeypatch, rows_of):
    folder = image_folder(3)
    embed(folder)
    before = rows_of()
    image_folder(3, first=3)

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "archive" / "shards"))

    with monkeypatch.context() as patch:
        patch.setattr("patchknn.archive.pending.write_shard", full)
        result, _ = embed(folder)
    assert result.code == 1
    assert "the disk is full" in result.err
    assert rows_of() == before
    assert not verify_archive(tmp_path / "archive")
    _, summary = embed(folder)
    assert (summary["rows"], summary["skipped"]) == (3, 3)


def test_units_in_the_hands_of_another_process_are_left_to_it(embed, write_slide, tmp_path):
    write_slide("slides/a.tif")
    write_slide("slides/b.tif", seed=1)
    embed(tmp_path / "slides" / "a.tif", archive="archive")
    write_slide("slides/c.tif", seed=2)
    with Claims(tmp_path / "archive" / ".claims") as other:
        assert other.claim("b.tif")
        result, summary = embed(tmp_path / "slides")
    assert result.code == 0
    assert (summary["sources"], summary["skipped"], summary["held"]) == (1, 1, 1)
    assert "in the hands of other processes" in result.err
    _, summary = embed(tmp_path / "slides")
    assert (summary["sources"], summary["skipped"], summary["held"]) == (1, 2, 0)


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


def _start(encoder, archive, *arguments, delay=0.0):
    command = [
        sys.executable, "-c", _SLOW.format(delay=delay), "embed", *map(str, arguments),
        "-e", encoder, "-a", archive, "--device", "cpu", "--batch-size", "4",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip


def _wait_for_batches(process, count):
    for _ in range(count):
        assert process.stdout.readline() == "batch\n"


def test_a_killed_process_loses_nothing_published_and_the_same_command_goes_on(
    embed, encoder, write_slide, tmp_path, rows_of
):
    for number in range(4):
        write_slide(f"slides/{number}.tif", seed=number, size=128)  # 8 patches, 2 batches
    folder = tmp_path / "slides"
    archive = tmp_path / "archive"
    process = _start(encoder, archive, folder, "--publish-every", "0", "--workers", "1", delay=0.2)
    _wait_for_batches(process, 7)  # a trial, then two slides are published, the third is in hand
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    kept = rows_of()
    assert {row.split("@")[0] for row in kept} >= {"0.tif", "1.tif"}
    assert len(kept) < 32
    result, summary = embed(folder, "--batch-size", 4)
    assert result.code == 0
    assert summary["skipped"] == len(kept) // 8
    embed(folder, "--batch-size", 4, archive="single")
    _assert_same(rows_of(), rows_of("single"))
    assert not verify_archive(archive)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 75, "stopped by SIGTERM"),
        (signal.SIGUSR1, 75, "stopped by SIGUSR1"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_publishes_what_is_complete_and_the_same_command_goes_on(  # noqa: PLR0917
    embed, encoder, image_folder, tmp_path, rows_of, number, code, said
):
    images = image_folder(40)
    archive = tmp_path / "archive"
    process = _start(encoder, archive, images, "--workers", "1", delay=0.2)
    _wait_for_batches(process, 4)  # a trial, two done, one in hand
    os.killpg(process.pid, number)  # as a scheduler does, which tells the readers too
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert said in err
    assert "Traceback" not in err
    kept = rows_of()
    assert 8 <= len(kept) < 40
    assert json.loads(out.splitlines()[-1])["rows"] == len(kept)
    _, summary = embed(images, "--batch-size", 4)
    assert summary["skipped"] == len(kept)
    assert len(rows_of()) == 40
    assert not verify_archive(archive)


def test_many_processes_at_once_do_every_slide_once(encoder, write_slide, tmp_path, embed, rows_of):
    for number in range(5):
        write_slide(f"slides/{number}.tif", seed=number, size=128)
    archive = tmp_path / "archive"
    processes = [
        _start(encoder, archive, tmp_path / "slides", "--workers", "0", delay=0.1) for _ in range(2)
    ]
    summaries = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        summaries.append(json.loads(out.splitlines()[-1]))
    embed(tmp_path / "slides")
    assert sum(summary["sources"] for summary in summaries) <= 5
    assert len(rows_of()) == 40
    embed(tmp_path / "slides", archive="single")
    _assert_same(rows_of(), rows_of("single"))
    assert not verify_archive(archive)


@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_a_disk_that_takes_no_more_is_named(
    embed, image_folder, tmp_path, *, rows_of, little_room, container
):
    folder = image_folder(3)
    embed(folder, "--format", container)
    before = rows_of()
    image_folder(60, first=3)
    with little_room(9000):  # room for small files, not for 60 features
        result, summary = embed(folder, "--format", container)
    assert result.code == 1
    assert result.err == f"patchknn: {tmp_path / 'archive'}: File too large.\n"
    assert summary["rows"] == 0
    assert rows_of() == before
    assert not verify_archive(tmp_path / "archive")
    assert not list((tmp_path / "archive").rglob(".tmp-*"))
    _, summary = embed(folder, "--format", container)
    assert (summary["rows"], summary["skipped"]) == (60, 3)


def test_a_disk_without_room_for_the_encoder_makes_no_archive(
    embed, image_folder, tmp_path, little_room
):
    with little_room(9000):
        result, summary = embed(image_folder(3))
    assert (result.code, summary) == (1, None)
    assert result.err == f"patchknn: {tmp_path / 'archive'}: File too large.\n"
    assert not (tmp_path / "archive").exists()
    assert not list(tmp_path.rglob(".tmp-*"))
