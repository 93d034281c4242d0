"""Slide models on made-up cohorts whose label hangs on rare tissue: the area of each model.

    python tests/benchmarks/slide_learning.py --quick        # does everything work? some minutes
    python tests/benchmarks/slide_learning.py --json FILE --check

Cohorts of 100 to 400 slides (``patchknn/simulate/cohorts.py``), of which positive ones have 1, 5 or
20 % of a tissue that others lack, and a null cohort, whose labels say nothing. Each model is judged
by cross-validation by patient; intervals are over patients. ``plain-cnn`` is what the CNN is not:
full convolutions of stride 2 with batch norm, and the mean of their last layer. What FILE has is
not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from report import environment, say
from torch import Tensor, nn

from patchknn.simulate.cohorts import CohortSettings
from patchknn.wholeslide.grids.simulated import write_cohort
from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.learning.fit import train_slide_model
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.models.making import MODELS as NETWORKS
from patchknn.wholeslide.models.making import SHAPES
from patchknn.wholeslide.models.tissue import Standardised
from patchknn.wholeslide.tasks.reading import Question

SHARES = (0.01, 0.05, 0.2, 0.0)
SLIDES = (100, 200, 400)
MODELS = ("mean", "max", "mil", "cnn")

# What must hold of the largest cohort.
LEAST_AHEAD = 0.15  # the CNN and attention before the mean, where tissue is rare


class PlainCNN(nn.Module):
    """Grids (B, D, H, W) → outputs (B, O): three convolutions 3×3 of stride 2, and their mean."""

    def __init__(self, dim: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.input = Standardised(dim)
        layers: list[nn.Module] = []
        for width in (dim, hidden, hidden):
            layers += [nn.Conv2d(width, hidden, 3, 2, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Grids, zero where ``mask`` (B, H, W) is false → (B, O)."""
        values = self.layers(self.input.grids(features, mask))
        result: Tensor = self.head(values.mean(dim=(2, 3)))
        return result


NETWORKS["plain-cnn"], SHAPES["plain-cnn"] = PlainCNN, ()


def measured(
    slides: int, share: float, seed: int, model: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One model on one cohort."""
    with tempfile.TemporaryDirectory() as folder:
        settings = CohortSettings(slides=slides, rare=share, seed=seed)
        table = write_cohort(Path(folder) / "grids", settings)
        cohort = read_cohort(Path(folder) / "grids", table, Question())
        training = SlideSettings(
            model=model, epochs=options.epochs, folds=options.folds, device=options.device
        )
        started = time.perf_counter()
        result = train_slide_model(cohort, training, Path(folder) / "model", _nothing)
    auc = result.figures["auc"]
    return {
        "slides": slides,
        "rare": share,
        "seed": seed,
        "model": model,
        "auc": auc.value,
        "low": auc.low,
        "high": auc.high,
        "seconds": round(time.perf_counter() - started, 1),
    }


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """What does not hold of the largest cohorts, over seeds, as sentences."""
    most = max(row["slides"] for row in rows)
    largest = [row for row in rows if row["slides"] == most]
    told = []
    for share, model in {(row["rare"], row["model"]): None for row in largest}:
        own, base = (_of(largest, share, name) for name in (model, "mean"))
        if 0 < share < 0.2 and base and model in {"mil", "cnn"}:
            ahead = mean(row["auc"] for row in own) - mean(row["auc"] for row in base)
            if ahead < LEAST_AHEAD:
                told.append(f"{model} is {ahead:.3f} ahead of the mean at {share:.0%}")
        if not share:
            outside = [row for row in own if not row["low"] <= 0.5 <= row["high"]]
            told += [f"{model} has {row['auc']:.3f} on labels that say nothing" for row in outside]
    return told


def _of(rows: list[dict[str, Any]], share: float, model: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["rare"], row["model"]) == (share, model)]


def _nothing(_: str) -> None:
    """Where messages of the training go."""


def main() -> None:
    """Measure, print, and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 slides, few epochs")
    parser.add_argument("--slides", type=int, nargs="*", help="sizes of cohorts")
    parser.add_argument("--rare", type=float, nargs="*", default=SHARES, help="shares; 0: null")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="a cohort of each")
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.folds = 20, 3
    rows = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())["rows"]
    known = {(row["slides"], row["rare"], row["seed"], row["model"]) for row in rows}
    sizes = options.slides or (SLIDES[:1] if options.quick else SLIDES)
    for asked in product(sizes, options.rare, options.seeds, options.models):
        if asked in known:
            continue
        row = measured(*asked, options)
        rows.append(row)
        say(
            f"{row['slides']} slides, {row['rare']:.0%} rare, seed {row['seed']}, {row['model']}: "
            f"AUC {row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['seconds']} s"
        )
        if options.json:
            told = {"environment": environment(1), "rows": rows}
            options.json.write_text(json.dumps(told, indent=1))
    if options.check and (told := failures(rows)):
        raise SystemExit("; ".join(told))


if __name__ == "__main__":
    main()
