"""A Dask scheduler and its workers, some of which are killed with work in hand."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tifffile
from embedding import image_folder

from patchknn.archive.snapshot import open_archive
from patchknn.bundle import load_bundle
from patchknn.cli.main import run

pytest.importorskip("distributed")

_VICTIM = Path(__file__).with_name("dask_victim.py")
_SIZE = 32


def _environment(**more):
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", **more}


class _DaskCluster:
    """A scheduler of its own, reached by a file, and workers that can be killed."""

    def __init__(self, folder):
        self.file = folder / "scheduler.json"
        self._processes = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")

    def worker(self, *, stops_in=None, fifo=None):
        """Start one; ``stops_in`` a function it stops for good, and says so through ``fifo``."""
        victim = {"PATCHKNN_VICTIM": f"{stops_in}={fifo}"} if stops_in else {}
        words = ("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--preload", _VICTIM)
        return self._start(*words, **victim)

    def close(self):
        for process in self._processes:
            process.kill()
            process.communicate()

    def _start(self, *words, **more):
        line = [sys.executable, "-m", "dask", *map(str, words), "--scheduler-file", str(self.file)]
        process = subprocess.Popen(
            line, env=_environment(**more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._processes.append(process)
        return process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = _DaskCluster(tmp_path_factory.mktemp("dask"))
    yield made
    made.close()


def _patchknn(*words):
    """What a command line prints, in this process, which has torch imported."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert run([str(word) for word in words]) == 0
    return printed.getvalue()


def _while_one_is_killed(cluster, line, stops_in, fifo):
    """Run a line on three workers; one of them is killed with a task in its hands."""
    os.mkfifo(fifo)
    victim = cluster.worker(stops_in=stops_in, fifo=fifo)
    command = [sys.executable, "-m", "patchknn", *map(str, line), "--dask", str(cluster.file)]
    out, err = fifo.with_suffix(".out"), fifo.with_suffix(".err")
    with out.open("w") as stdout, err.open("w") as stderr:
        running = subprocess.Popen(command, env=_environment(), stdout=stdout, stderr=stderr)
        assert fifo.read_text() == "here"
        victim.kill()
        assert running.wait() == 0, err.read_text()
    return out.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Slides of noise on pink, images, an encoder, and the archive that one process makes."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(6):
        grain = np.random.default_rng(number).integers(-50, 50, (256, 256, 3))
        pixels = np.clip(np.array([190, 90, 160]) + grain, 0, 255).astype(np.uint8)
        (folder / "slides").mkdir(exist_ok=True)
        tifffile.imwrite(
            *(folder / "slides" / f"{number}.tif", pixels),
            tile=(128, 128),
            photometric="rgb",
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
    image_folder(folder / "images", {f"{n}.png": "AB"[n % 2] for n in range(40)}, 9)
    _patchknn(
        *("train", folder / "images", "-o", folder / "encoder", "--backbone", "test_resnet"),
        *("--loss", "none", "--size", _SIZE, "--bits", 16, "--device", "cpu"),
    )
    _patchknn(*_embedding(folder, "alone"))
    return folder


def _embedding(folder, archive):
    words = ("embed", folder / "slides", folder / "images", "-e", folder / "encoder")
    return *words, "-a", folder / archive, "--mpp", "0.5", "--device", "cpu"


@pytest.mark.timeout(600)
def test_what_a_killed_worker_had_in_hand_is_done_by_another(cluster, folder, tmp_path):
    for _ in range(2):
        cluster.worker()
    line = _embedding(folder, "spread")
    out = _while_one_is_killed(
        *(cluster, (*line, "--publish-every", 0)),
        *("patchknn.indexing.remote:open_unit", tmp_path / "embed"),
    )
    summary = json.loads(out)
    assert (summary["failed"], summary["held"], summary["skipped"]) == (0, 0, 0)
    alone, spread = open_archive(folder / "alone"), open_archive(folder / "spread")
    assert summary["rows"] == len(alone) == len(spread) > 40 + 6 * 40
    _assert_same_rows(_rows(alone), _rows(spread), load_bundle(folder / "encoder"))
    assert not list((folder / "spread").glob(".claims/*"))

    # Of one archive, so that answers are the same. Without an index each shard is one part, of
    # which every worker gets a share.
    assert len(spread.shards) > 3
    shutil.rmtree(folder / "spread" / "index")
    queries = ("query", folder / "spread", folder / "slides" / "3.tif", folder / "images" / "A")
    out = _while_one_is_killed(
        *(cluster, (*queries, "--radius", 0, "--device", "cpu")),
        *("patchknn.search.share_search:rank_share", tmp_path / "query"),
    )
    _assert_same_answers(_patchknn(*queries, "--radius", 0, "--device", "cpu"), out)
    stored = ("query", folder / "spread", "--id", "3.tif@64_64", "--radius", "0")
    words = (*stored, "--max-per", "slide", "2", "--k", "12")
    assert _patchknn(*words, "--dask", cluster.file) == _patchknn(*words)
    judged = ("evaluate", folder / "spread", folder / "images", "--exclude-same", "self")
    _assert_same_figures(
        _patchknn(*judged, "--device", "cpu"),
        _patchknn(*judged, "--device", "cpu", "--dask", cluster.file),
    )


def _rows(snapshot):
    rows = {}
    for shard in snapshot.shards:
        for local in range(shard.n):
            row = snapshot.row(int(shard.first_row) + local)
            rows[row.id] = (row.label, shard.features[local], shard.codes[local])
    return rows


def _assert_same_rows(rows, others, bundle):
    """Of other threads and batches features may differ by a unit in the last place of float16."""
    assert rows.keys() == others.keys()
    for name, (label, feature, code) in rows.items():
        other_label, other_feature, other_code = others[name]
        assert other_label == label
        units = feature.view(np.int16).astype(int) - other_feature.view(np.int16).astype(int)
        assert np.abs(units).max() <= 1, name
        pair = np.stack([feature, other_feature]).astype(np.float64)
        hashed = pair @ bundle.hash_map.weight.T.astype(np.float64) + bundle.hash_map.bias
        settled = (hashed > 0).all(axis=0) | (hashed < 0).all(axis=0)
        bits, other_bits = np.unpackbits(code), np.unpackbits(other_code)
        assert (bits == other_bits)[settled].all(), name


def _assert_same_answers(lines, other_lines):
    """A query's own features may differ as above: what stands beside may in the last digits."""
    answers, others = (
        [json.loads(line) for line in text.splitlines()] for text in (lines, other_lines)
    )
    assert [answer["query"] for answer in answers] == [other["query"] for other in others]
    for answer, other in zip(answers, others, strict=True):
        for name in ("prediction", "votes", "radius", "ball", "widened"):
            assert answer[name] == other[name], answer["query"]
        ids = [[n["id"] for n in one["neighbours"]] for one in (answer, other)]
        assert ids[0] == ids[1], answer["query"]
        distances = [[n["l2"] for n in one["neighbours"]] for one in (answer, other)]
        np.testing.assert_allclose(distances[0], distances[1], rtol=1e-2)


# Made of fractions that features of other batches move in their last digits.
_NESTED = frozenset({"confidence_figures", "intervals"})


def _assert_same_figures(line, other):
    figures, others = json.loads(line), json.loads(other)
    assert figures.keys() == others.keys()
    for name, value in figures.items():
        if isinstance(value, float):
            assert others[name] == pytest.approx(value, abs=0.02), name
        elif name in _NESTED:
            _assert_alike(value, others[name], name)
        elif name not in {"settings"}:
            assert others[name] == value, name


def _assert_alike(value, other, where):
    if isinstance(value, dict):
        assert value.keys() == other.keys(), where
        for name in value:
            _assert_alike(value[name], other[name], f"{where}.{name}")
    elif isinstance(value, list | float):
        assert other == pytest.approx(value, abs=1e-3), where
    else:
        assert other == value, where
