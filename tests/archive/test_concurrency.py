"""Many real processes write and create at once: nothing is lost, nothing doubled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from patchknn.archive.snapshot import open_archive
from patchknn.archive.verify import verify_archive

_WRITERS, _ROUNDS = 5, 6

_PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import conftest
from patchknn.archive.create import create_archive
from patchknn.archive.snapshot import open_archive
from patchknn.archive.writer import ArchiveWriter
from patchknn.bundle import load_bundle
bundle, path, writer_number = load_bundle(Path({bundle!r})), Path({path!r}), int(sys.argv[1])
create_archive(path, bundle, patch_px=224, mpp=0.5)
with ArchiveWriter(path, format=["zarr", "hdf5"][writer_number % 2]) as writer:
    for round in range({rounds}):
        own = f"w{{writer_number}}-{{round}}"
        writer.add(conftest.build_rows(bundle, images=[own + ".png"], slides=[own + ".svs"]))
        writer.add(conftest.build_rows(bundle, images=[f"shared-{{round}}.png"], slides=[]))
        number = writer.publish()
        seen = open_archive(path)
        assert seen.locate(own + ".png") is not None and seen.number >= number
print(writer.duplicates)
"""


def test_processes_that_create_and_publish_at_once(tmp_path, bundle):
    path = tmp_path / "many"
    program = _PROGRAM.format(
        tests=str(Path(__file__).parent),
        bundle=str(bundle.directory),
        path=str(path),
        rounds=_ROUNDS,
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(_WRITERS)
    ]
    outputs = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0] * _WRITERS, outputs
    snapshot = open_archive(path)
    ids = [snapshot.row(row).id for row in range(snapshot.n_rows)]
    expected = {f"shared-{r}.png" for r in range(_ROUNDS)}
    for writer in range(_WRITERS):
        for r in range(_ROUNDS):
            expected |= {f"w{writer}-{r}.png"}
            expected |= {f"w{writer}-{r}.svs@{224 * tile}_448" for tile in range(5)}
    assert Counter(ids) == Counter(dict.fromkeys(expected, 1))
    assert snapshot.number == _WRITERS * _ROUNDS
    assert sum(int(out) for out, _ in outputs) == (_WRITERS - 1) * _ROUNDS
    assert verify_archive(path) == []
    assert not list(path.rglob(".tmp-*"))
    live = {shard.uuid for shard in snapshot.shards}
    assert {file.name.split(".")[0] for file in (path / "shards").iterdir()} == live
