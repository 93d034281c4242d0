"""``patchknn slide train``: grids and what a table says of their slides become a slide model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import console, options, train_options

if TYPE_CHECKING:
    from patchknn.datasets.patches import Problem
    from patchknn.wholeslide.learning.cases import Cohort
    from patchknn.wholeslide.learning.fit import SlideTraining

_SOME_INPUTS_FAILED = 3


def train(
    grids: Annotated[
        Path, typer.Argument(metavar="GRIDS", help="Folder of grids ('slide compress').")
    ],
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", help="CSV, TSV or Parquet: slide, what is asked, patient, split."
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="Folder of the slide model.")
    ],
    model: Annotated[
        Literal["cnn", "mil", "mean", "max"],
        typer.Option("--model", help="Strided CNN, attention MIL, or pooling (baselines)."),
    ] = "cnn",
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="Classes [default: label].")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="Numbers, for a regression.")
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="COLUMN", help="Times, for survival.")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--event", metavar="COLUMN", help="1: event; 0: censored.")
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", min=0, help="Cross-validation by patient; 0: none.")
    ] = 5,
    own_split: Annotated[
        bool, typer.Option("--own-split", help="No folds: the table's train, val and test.")
    ] = False,
    class_weights: Annotated[
        Literal["none", "balanced"],
        typer.Option("--class-weights", help="balanced: rare classes count as much as others."),
    ] = "none",
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes [30 to 200, by slides].")
    ] = None,
    patience: Annotated[
        int, typer.Option("--patience", min=0, help="End after so many without gain; 0: never.")
    ] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, max=1 << 16, help="Slides per batch [8; survival 32]."),
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", min=0.0, help="Rate [0.003 of cnn, else 0.001].")
    ] = None,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", min=0.0, help="Of the optimiser, AdamW.")
    ] = 0.01,
    hidden: Annotated[
        int | None, typer.Option("--hidden", min=1, help="Width of layers [cnn 64, mil 128].")
    ] = None,
    depth: Annotated[
        int, typer.Option("--depth", min=1, max=8, help="Strided convolutions of cnn.")
    ] = 2,
    dropout: Annotated[
        float, typer.Option("--dropout", min=0.0, max=0.95, help="Of cnn and mil.")
    ] = 0.25,
    window: Annotated[
        int, typer.Option("--window", metavar="PLACES", min=8, help="Cut from larger grids.")
    ] = 256,
    turn: Annotated[
        bool, typer.Option("--turn/--no-turn", help="Turn and mirror grids by chance.")
    ] = True,
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, help="Batches of one step of the optimiser.")
    ] = 1,
    precision: train_options.Precision = None,
    tensorboard: train_options.TensorBoard = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", metavar="N", min=0, help="Draws for intervals.")
    ] = 1000,
    device: options.Device = None,
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Learn from whole slides what a table says of them, judged on patients not seen.

    TABLE has a row for each slide. Each of --folds models is judged on patients that it has not
    seen (predictions.csv in MODEL); then the kept one is trained on all slides. Stopped, the same
    command goes on where it was; started by torchrun or srun, the processes train together.
    """
    from patchknn.errors import UsageError
    from patchknn.training.ranks import first_started
    from patchknn.wholeslide.learning.cases import read_cohort
    from patchknn.wholeslide.learning.fit import plan_folds, train_slide_model
    from patchknn.wholeslide.learning.settings import SlideSettings
    from patchknn.wholeslide.tasks.reading import Question

    settings = SlideSettings(
        model=model,
        hidden=hidden,
        depth=depth,
        dropout=dropout,
        window=window,
        turn=turn,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        class_weights=class_weights,
        folds=folds,
        accumulate=accumulate,
        precision=precision,
        tensorboard=tensorboard,
        bootstrap=bootstrap,
        seed=seed,
        device=device,
    )
    settings.check()
    if class_weights == "balanced" and (target or time):
        message = "--class-weights balanced is about classes: leave it away, or give --label."
        raise UsageError(message)
    question = Question(label, target, time, event, balanced=class_weights == "balanced")
    cohort = read_cohort(grids, table, question)
    first = first_started()
    if first:
        for remark in cohort.remarks:
            console.warn(remark)
        for problem in cohort.problems:
            console.fail(problem.error)
        console.message(_summary(cohort))
    if dry_run:
        plan_folds(cohort, settings, split=own_split)
    else:
        result = train_slide_model(
            cohort,
            settings,
            output,
            console.message,
            split=own_split,
            progress=console.progress,
        )
        if first:
            _show(result, output, cohort.problems, console.output_format(format))
    # torchrun ends all at the first exit that is not 0, while the first process may yet be writing.
    return _SOME_INPUTS_FAILED if cohort.problems and first else 0


def _summary(cohort: Cohort) -> str:
    from collections import Counter

    told = ""
    if cohort.task.kind == "classification":
        counts = Counter(cohort.task.strata(cohort.targets))
        told = f" ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})"
    elif cohort.task.kind == "survival":
        told = f" ({int(cohort.targets[:, 1].sum())} with the event)"
    patients = len({case.patient for case in cohort.cases})
    return f"{cohort.task.kind}: {len(cohort.cases)} slides of {patients} patients{told}"


def _show(result: SlideTraining, output: Path, problems: Sequence[Problem], style: str) -> None:
    row: dict[str, Any] = {"slide_model": str(output)}
    names = ("model", "slides", "patients", "judged_slides", "best_epoch")
    row |= {name: result.training.get(name) for name in names}
    row |= {name: figure.value for name, figure in result.figures.items()}
    columns = list(row)
    bounds = {name: (figure.low, figure.high) for name, figure in result.figures.items()}
    if style == "ndjson":
        for problem in problems:
            console.write_ndjson({"input": problem.name, "error": problem.error})
        row |= {"intervals": {name: list(pair) for name, pair in bounds.items()}}
    elif style == "table":
        for name, (low, high) in bounds.items():
            if low is not None and row[name] is not None:
                row[name] = f"{row[name]:.4g} ({low:.3g} to {high:.3g})"
    row |= {"seconds": round(result.seconds, 1), "skipped": result.skipped}
    row |= {"fingerprint": result.fingerprint}
    console.write_rows([row], [*columns, "seconds"], style, title="Slide model")
    if problems:
        console.message(f"{len(problems)} inputs could not be used; the rest is done.")
