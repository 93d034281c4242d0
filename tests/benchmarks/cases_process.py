"""Whole processes: what a loop in a shell pays for one query."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from archives import Wanted, archive
from bench import Bench
from report import Setting
from timing import Budget, Contender, take_turns

_ROUNDS = 9


def process(bench: Bench) -> None:
    """``patchknn query`` by id and by features, warm, in one shard and in 1000."""
    (n,) = bench.sizes(1_000_000)
    for codes in ("spread",) if bench.quick else ("spread", "collapsed"):
        contenders = []
        for shards in (1, 1000 // bench.scale):
            wanted = Wanted(codes, "low-rank", n, 64, shards)
            path, snapshot = archive(wanted, bench.cache), bench.open(wanted)
            where = "1 shard" if shards == 1 else "shards"
            identity = snapshot.row(n // 2).id
            features = _stored_features(snapshot.shards[0].features[:1])
            for what, arguments in (("--id", ["--id", identity]), ("features", [str(features)])):
                name = f"patchknn query {what}, {where}"
                contenders.append(
                    Contender(name, _command(["query", str(path), *arguments]), recall=None)
                )
        contenders.append(Contender("python -c 'import numpy'", _numpy, recall=None))
        setting = Setting(f"process, {codes}", n, 64, 1, "process")
        budget = replace(bench.budget, rounds=1 if bench.quick else _ROUNDS)
        bench.log.add(setting, take_turns(contenders, 1, Budget(budget.rounds, 0)))


def _stored_features(features: np.ndarray) -> Path:
    file = Path(tempfile.mkdtemp(prefix="patchknn-benchmark-")) / "query.npy"
    np.save(file, features)
    return file


def _command(arguments: list[str]) -> Callable[[int], None]:
    script = Path(sys.executable).with_name("patchknn")
    found = str(script) if script.exists() else shutil.which("patchknn")
    command = [found] if found else [sys.executable, "-m", "patchknn"]
    # What is installed was compiled then; a working copy is, by the run before the first round.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(count: int) -> None:
        for _ in range(count):
            subprocess.run(
                [*command, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
            )

    return run


def _numpy(count: int) -> None:
    for _ in range(count):
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
