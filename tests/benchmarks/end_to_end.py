"""A hundred thousand tiles of two hundred slides, from slides to answers, by the command line.

    python tests/benchmarks/end_to_end.py --quick                   does everything work? a minute
    python tests/benchmarks/end_to_end.py --json FILE               some twenty minutes on two cores
    python tests/benchmarks/end_to_end.py --dask local:2            tile, embed, query by workers

Wall time of each command, and the most memory that it and its processes held together. Tiles are of
64 px and the network is a very small one: what is measured is everything around the network.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline_memory import peak
from report import environment, say

from patchknn.jobs.cpus import available_cpus

_SIZE = 64
_QUERIES, _JUDGED = 1000, 5000


def main() -> int:
    """Run the stages one after the other; 1 where one of them fails or rows are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four slides")
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--dask", metavar="ADDRESS|FILE|local:N")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    slides = 4 if asked.quick else asked.slides
    figures: dict[str, dict[str, float]] = {}
    where = environment(available_cpus(), ("torch", "timm", "numpy"))
    say(where)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stage, words in _stages(folder, slides, asked.dask):
            command = [sys.executable, "-m", "patchknn", *words]
            began = time.perf_counter()
            most = peak(command)
            figures[stage] = {"seconds": time.perf_counter() - began, "peak_mb": most / 1e6}
            say(f"{stage:<10}{figures[stage]['seconds']:9.1f} s{most / 1e6:10.0f} MB")
        facts = {"slides": slides, "environment": where, **_counts(folder)}
    total = sum(one["seconds"] for stage, one in figures.items() if stage != "simulate")
    say(f"{facts['tiles']} tiles, {facts['rows']} rows; {total:.1f} s without drawing the slides")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"facts": facts, "stages": figures}, indent=1) + "\n")
    return 0 if facts["tiles"] == facts["rows"] else 1


def _stages(folder: Path, slides: int, dask: str | None):
    """The commands, each drawn when those before it have ended."""
    spread = ["--dask", dask] if dask else []
    size = ["--size", str(_SIZE)]
    simulate = [
        "--slides",
        str(slides),
        "--patients",
        str(max(slides // 4, 2)),
        "--size-px",
        "2048",
    ]
    yield "simulate", ["simulate", "slides", str(folder / "slides"), *simulate]
    tiles, archive = str(folder / "tiles"), str(folder / "archive")
    listed = str(folder / "slides" / "slides.csv")
    yield "tile", ["tile", listed, "-o", tiles, *size, *spread]
    encoder = str(folder / "encoder")
    some = sorted(str(file) for file in (folder / "tiles").glob("*.h5"))[:4]
    fit = ["--backbone", "test_resnet", "--loss", "none", "--bits", "48", *size]
    yield "train", ["train", *some, "-o", encoder, *fit]
    yield "embed", ["embed", tiles, "-e", encoder, "-a", archive, *spread]
    yield "verify", ["archive", "verify", archive]
    rows = folder / "rows.tsv"
    with rows.open("w") as file:
        listing = [sys.executable, "-m", "patchknn", "archive", "list", archive, "--format", "tsv"]
        subprocess.run(listing, stdout=file, check=True)
    head, *lines = rows.read_text().splitlines()
    chosen = random.Random(0).sample(lines, min(_QUERIES, len(lines)))
    column = head.split("\t").index("id")
    ids = [line.split("\t")[column] for line in chosen]
    yield "query", ["query", archive, "--id", *ids, *spread]
    labelled = [line for line in lines if line.split("\t")[head.split("\t").index("label")]]
    judged = folder / "judged.tsv"
    some_labelled = random.Random(1).sample(labelled, min(_JUDGED, len(labelled)))
    judged.write_text("\n".join([head, *some_labelled]) + "\n")
    yield "evaluate", ["evaluate", archive, str(judged), *spread]


def _counts(folder: Path) -> dict[str, int]:
    from patchknn.archive.snapshot import open_archive
    from patchknn.slides.tileset import read_tileset

    tiles = sum(len(read_tileset(file)) for file in (folder / "tiles").glob("*.h5"))
    return {"tiles": tiles, "rows": len(open_archive(folder / "archive"))}


if __name__ == "__main__":
    raise SystemExit(main())
