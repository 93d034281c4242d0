"""``patchknn demo``: the whole way on synthetic slides, each command shown as one would type it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from patchknn.cli import console, options
from patchknn.errors import ConflictError, PatchknnError

_MARKER = ".patchknn-demo"
# Two of the eight patients are kept from training and from the archive: they are the questions.
_KNOWN = "tiles/patient[1-6]_*.h5"
_NEW = "tiles/patient[78]_*.h5"


def demo(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made, or made anew.")] = Path(
        "patchknn-demo"
    ),
    seed: options.Seed = 0,
) -> int:
    """Simulate slides, tile, train, embed, query and evaluate: under 3 minutes on two cores.

    Prints each command so that it can be copied. Needs no network and no GPU.
    """
    _prepare(directory)
    began = time.monotonic()
    shell = _Shell(directory)
    console.message(f"$ cd {shlex.quote(str(directory))}")
    chance = f"--seed {seed}"
    # Rows of these two would only push the answers off the screen; stderr has their counts.
    shell.capture(f"simulate slides slides --slides 16 --patients 8 {chance}")
    shell.capture(
        "tile slides/slides.csv -o tiles --size 64 --mpp 1.0 --min-tissue 0 --labelled --images png"
    )
    # A network this small learns in a minute on a CPU; use a pretrained one for real work.
    shell.run(
        f"train {_KNOWN} -o encoder --backbone test_resnet --loss multitask --size 64 --bits 48 "
        f"--epochs 10 {chance} --format table"
    )
    shell.run(f"embed {_KNOWN} --encoder encoder --archive archive --thumbnails 64")
    shell.run("archive info archive --format table")
    patch = json.loads(shell.capture("archive list archive --limit 1 --format ndjson"))["id"]
    shell.run(f"query archive --id {patch} --exclude-same patient --k 5 --format table")
    shell.run(f"query archive {_NEW} --montage montage.png -o answers.ndjson")
    report = shell.capture(f"evaluate archive {_NEW} --baseline mean-colour --format ndjson")
    _summarise([json.loads(line) for line in report.splitlines()], directory, began)
    return 0


class _Shell:
    """Runs patchknn in the demo's folder as a user's shell would, showing each line first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(self, line: str) -> None:
        """Run one command, its output going where ours goes."""
        self._call(line, capture=False)

    def capture(self, line: str) -> str:
        """Run one command and return what it writes to stdout."""
        return self._call(line, capture=True)

    def _call(self, line: str, *, capture: bool) -> str:
        console.message("")
        console.message(f"$ patchknn {line}")
        sys.stdout.flush()
        words = [word for part in shlex.split(line) for word in self._expanded(part)]
        finished = subprocess.run(
            [sys.executable, "-m", "patchknn", *words],
            cwd=self._directory,
            stdout=subprocess.PIPE if capture else None,
            text=True,
            check=False,
        )
        if finished.returncode != 0:
            message = (
                f"The demo stopped at: patchknn {line} (exit {finished.returncode}); "
                "run 'patchknn doctor' to see what this machine lacks."
            )
            raise PatchknnError(message)
        return finished.stdout or ""

    def _expanded(self, word: str) -> list[str]:
        if "*" not in word:
            return [word]
        return sorted(str(path.relative_to(self._directory)) for path in self._directory.glob(word))


def _prepare(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        if not (directory / _MARKER).is_file():
            message = f"{directory} holds files that no demo made; name another folder."
            raise ConflictError(message)
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).write_text("This folder was made by 'patchknn demo'.\n")


def _summarise(methods: list[dict[str, Any]], directory: Path, began: float) -> None:
    columns = (
        "method",
        "accuracy",
        "mean_class_recall",
        "precision_at_k",
        "all_k_true",
        "confidence_auroc",
    )
    rows = [[method.get(name) for name in columns] for method in methods]
    count = methods[0]["n"]
    console.write_text("\n")
    console.print_table(
        columns, rows, title=f"{count} patches of two patients that the archive has never seen"
    )
    seconds = time.monotonic() - began
    console.write_text(
        f"The whole way took {seconds:.0f} s. Next, in {directory}:\n"
        "  look at montage.png, the queries beside their neighbours\n"
        "  patchknn query archive tiles/patient8_slide08/STR/*.png\n"
        "  find tiles/patient7_slide07 -name '*.png' | patchknn query archive - --format tsv\n"
        "  patchknn evaluate archive tiles/patient7_*.h5 --k 5 --radius 2\n"
        "  patchknn archive verify archive\n"
        "Then the same on your own slides: see the README, or 'patchknn tile --help'.\n"
    )
