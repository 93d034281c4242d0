"""The jobs of examples/slurm run as they stand, with a stand-in for Slurm's commands."""

from __future__ import annotations

import csv
import json
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchknn.bundle import load_bundle

_SLURM = Path(__file__).resolve().parents[2] / "examples" / "slurm"

# ``patchknn`` of a test that preempts: the first process that has a slide done and another in hand
# says so, and waits there for its signal.
_WAITS_IN_HAND = """#!{python}
import os, sys, time

if __name__ == "__main__" and sys.argv[1] == "embed":
    from patchknn.encoder.inference import FeatureExtractor

    usual, batches = FeatureExtractor.tensor_features, 0

    def features(self, images):
        global batches
        batches += 1
        if batches == {batches}:
            try:
                os.mkdir({marker!r})
            except FileExistsError:
                return usual(self, images)
            print("a unit is in hand", flush=True)
            time.sleep(100)
        return usual(self, images)

    FeatureExtractor.tensor_features = features

if __name__ == "__main__":
    from patchknn.cli.main import entry

    entry()
"""

pytestmark = [
    pytest.mark.skipif(shutil.which("jq") is None, reason="the examples need jq"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def slurm(cluster, run):
    """``slurm("sbatch", ...)``: a command of Slurm, or one that calls some."""

    def call(*words, cwd, code=0, **variables):
        return run(*words, cwd=cwd, code=code, **{**cluster.environment, **variables})

    return call


def _rows(run, archive):
    listed = run("patchknn", "archive", "list", archive, cwd=archive.parent).stdout
    rows = [json.loads(line) for line in listed.splitlines()]
    found = {row["id"]: (row["label"], row["code"], row["patient"]) for row in rows}
    assert len(found) == len(rows) > 20
    return found


def _status(run, of, code=0):
    told = run("patchknn", "jobs", "status", of, cwd=of.parent, code=code).stdout
    return json.loads(told)


def _codes(cluster, first):
    return [job.code for job in cluster.jobs if job.root == first]


@pytest.fixture
def slides(project, tmp_path):
    """Six slides of two patients in a list, and one that is none."""
    lines = ["path,patient,annotations"]
    for number in range(6):
        of = sorted((project / "slides").glob("*.tiff"))[number % 2]
        slide = Path(shutil.copy(of, tmp_path / f"{number}.tiff"))
        with slide.open("ab") as file:  # the same picture, and another file
            file.write(bytes([number + 1]) * 32)
        lines.append(f"{slide.name},P{number % 2},{of.with_suffix('.geojson')}")
    (tmp_path / "broken.svs").write_bytes(b"")
    lines.append("broken.svs,P3,")
    (tmp_path / "slides.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "slides.csv"


def test_a_preempted_array_and_a_broken_slide_give_the_archive_of_one_process(  # noqa: PLR0917
    cluster, slurm, run, project, slides, tmp_path
):
    waiting = tmp_path / "slurm" / "bin" / "patchknn"
    marker = str(tmp_path / "in hand")
    waiting.write_text(_WAITS_IN_HAND.format(python=sys.executable, marker=marker, batches=12))
    waiting.chmod(0o755)
    cluster.on("a unit is in hand", cluster.warn)
    archive, encoder = tmp_path / "archive", project / "encoder"
    words = (_SLURM / "submit.sh", slides, encoder, archive, 2)
    submitted = slurm(*words, cwd=tmp_path, PATCHKNN_EMBED_BATCH_SIZE="4")
    assert submitted.stdout == "7\n"
    cluster.wait()

    tile, tile_again, embed, embed_again, finish = (_codes(cluster, n) for n in (1, 3, 4, 6, 7))
    assert (max(tile), tile_again) == (3, [3])  # whoever had the broken slide says so
    assert embed == [0, 0]
    assert (embed_again, finish) == ([0], [3])
    restarts = {job.name: job.restarts for job in cluster.jobs if job.restarts}
    assert list(restarts.values()) == [1]
    (preempted,) = restarts
    said = cluster.task(preempted).output.read_text()
    assert "stopped by SIGUSR1" in said
    assert {row["unit"] for row in _status(run, tmp_path / "archive.tiles", 3)["failed_units"]} == {
        "broken.svs"
    }

    alone = tmp_path / "alone"
    tiles = ("tile", slides, "-o", tmp_path / "tiles", "--size", 64, "--mpp", 1)
    run("patchknn", *tiles, cwd=tmp_path, code=3)
    run("patchknn", "embed", tmp_path / "tiles", "-e", encoder, "-a", alone, cwd=tmp_path)
    assert _rows(run, archive) == _rows(run, alone)

    # Once it can be read, the second try takes it, and nothing else.
    shutil.copy(slides.with_name("0.tiff"), slides.with_name("broken.svs"))
    sets = tmp_path / "archive.tiles"
    words = ("tile", slides, "-o", sets, "--size", 64, "--mpp", 1)
    again = ("sbatch", "--wait", _SLURM / "retry.sbatch", sets, *words)
    slurm(*again, cwd=tmp_path, SCRIPTS=str(_SLURM))
    assert _status(run, sets)["failed"] == 0
    assert (sets / "broken.h5").is_file()
    assert "1 done, 0 skipped" in cluster.jobs[-1].output.read_text()


def test_sites_that_share_names_become_one_archive(cluster, slurm, run, project, tmp_path):
    pairs = []
    for number, site in enumerate(("north", "south")):
        (tmp_path / site).mkdir()
        of = sorted((project / "slides").glob("*.tiff"))[number]
        shutil.copy(of, tmp_path / site / "slide.tiff")
        pairs.append(f"{site}={tmp_path / site}")
    archive = tmp_path / "all"
    words = (_SLURM / "submit_sites.sh", project / "encoder", archive, *pairs)
    last = slurm(*words, cwd=tmp_path, TASKS="1").stdout.strip()
    cluster.wait()
    assert {job.name: job.code for job in cluster.jobs if job.code} == {}
    assert cluster.task(last).state == "COMPLETED"
    expected = {
        f"{site}/{identity}": (label, code, f"{site}/{patient}" if patient else None)
        for site in ("north", "south")
        for identity, (label, code, patient) in _rows(run, tmp_path / "all.sites" / site).items()
    }
    assert _rows(run, archive) == expected


def test_a_preempted_training_of_two_processes_goes_on(cluster, slurm, run, tmp_path):
    random = np.random.default_rng(0)
    for number in range(16):
        picture = tmp_path / "pictures" / "AB"[number % 2] / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(100 * (number % 2), 150, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(picture)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    cluster.on("epoch 1/", cluster.warn)
    asked = ("--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1")
    words = ("train", tmp_path / "pictures", "-o", tmp_path / "encoder", "--split", "none",
             *("--backbone", "test_resnet", "--size", 32, "--bits", 16, "--device", "cpu"),
             *("--epochs", 15, "--per-class", 4, "--workers", 0))  # fmt: skip
    slurm("sbatch", *asked, _SLURM / "train.sbatch", *words[1:], cwd=tmp_path,
          SCRIPTS=str(_SLURM), MASTER_PORT=port)  # fmt: skip
    cluster.wait()
    job = cluster.task("1")
    said = job.output.read_text()
    assert (job.code, job.restarts) == (0, 1), said
    assert said.count("stopped by SIGUSR1") == 2
    assert "going on from" in said
    with (tmp_path / "encoder" / "training.csv").open() as log:
        epochs = [int(row["epoch"]) for row in csv.DictReader(log)]
    assert epochs[-15:] == list(range(1, 16))
    assert load_bundle(tmp_path / "encoder").description.bits == 16


def test_a_night_submits_the_next_one_once(cluster, slurm, project, tmp_path):
    cluster.on("Submitted batch job 2", cluster.lose_node)
    archive = tmp_path / "archive"
    words = (project / "slides" / "slides.csv", project / "encoder", archive)
    slurm("sbatch", _SLURM / "nightly.sbatch", *words, cwd=tmp_path, SCRIPTS=str(_SLURM))
    cluster.wait()
    assert [(job.state, job.restarts) for job in cluster.jobs] == [("COMPLETED", 1), ("PENDING", 0)]
    report = json.loads(cluster.task("1").output.read_text().splitlines()[-1])
    assert report["added"] == report["rows"] > 0

    cluster.on("Submitted batch job 3", cluster.cancel)
    cluster.let_time_pass()
    cluster.wait()
    assert [job.state for job in cluster.jobs] == ["COMPLETED", "CANCELLED", "PENDING"]
    assert cluster.jobs[2].options["begin"] == "02:00"
    assert cluster.jobs[2].words[1:] == [str(word) for word in words]
