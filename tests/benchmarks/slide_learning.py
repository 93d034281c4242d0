"""Slide models on made-up cohorts whose label hangs on rare tissue: the area of each model.

    python tests/benchmarks/slide_learning.py --quick        # does everything work? some minutes
    python tests/benchmarks/slide_learning.py --json FILE --check

Cohorts of 100 to 400 slides (``patchknn/simulate/cohorts.py``), of which positive ones have 1, 5 or
20 % of a tissue that others lack, and a null cohort, whose labels say nothing. Each model is judged
by cross-validation by patient; intervals are over patients.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from report import environment, say

from patchknn.simulate.cohorts import CohortSettings
from patchknn.wholeslide.learning.cases import read_cohort
from patchknn.wholeslide.learning.fit import train_slide_model
from patchknn.wholeslide.learning.settings import SlideSettings
from patchknn.wholeslide.simulated import write_cohort
from patchknn.wholeslide.tasks.reading import Question

SHARES = (0.01, 0.05, 0.2, 0.0)
SLIDES = (100, 200, 400)
MODELS = ("mean", "max", "mil", "cnn")

# What must hold of the largest cohort.
LEAST_AHEAD = 0.15  # the CNN and attention before the mean, where tissue is rare


def measured(slides: int, share: float, model: str, options: argparse.Namespace) -> dict[str, Any]:
    """One model on one cohort."""
    with tempfile.TemporaryDirectory() as folder:
        settings = CohortSettings(slides=slides, rare=share, seed=options.seed)
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
        "model": model,
        "auc": auc.value,
        "low": auc.low,
        "high": auc.high,
        "seconds": round(time.perf_counter() - started, 1),
    }


def failures(rows: list[dict[str, Any]]) -> list[str]:
    """What does not hold of the largest cohort, as sentences."""
    most = max(row["slides"] for row in rows)
    found = {(row["rare"], row["model"]): row for row in rows if row["slides"] == most}
    told = []
    for (share, model), row in found.items():
        base = found.get((share, "mean"))
        if share and base and model in {"mil", "cnn"} and share < 0.2:
            ahead = row["auc"] - base["auc"]
            if ahead < LEAST_AHEAD:
                told.append(f"{model} is {ahead:.3f} ahead of the mean at {share:.0%}")
        if not share and not row["low"] <= 0.5 <= row["high"]:
            told.append(f"{model} has {row['auc']:.3f} on labels that say nothing")
    return told


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.folds = 20, 3
    rows = []
    for slides in options.slides or (SLIDES[:1] if options.quick else SLIDES):
        for share in options.rare:
            for model in options.models:
                row = measured(slides, share, model, options)
                rows.append(row)
                say(
                    f"{slides} slides, {share:.0%} rare, {model}: AUC {row['auc']:.3f} "
                    f"({row['low']:.3f} to {row['high']:.3f}), {row['seconds']} s"
                )
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(1), "rows": rows}, indent=1))
    if options.check and (told := failures(rows)):
        raise SystemExit("; ".join(told))


if __name__ == "__main__":
    main()
