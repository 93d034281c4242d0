"""``patchknn archive calibrate``: what a confidence of this archive means, kept in the archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from patchknn.cli import archive_options, console, options

if TYPE_CHECKING:
    from patchknn.archive.calibration import Calibration
    from patchknn.archive.snapshot import Snapshot
    from patchknn.evaluation.outcomes import Outcomes
    from patchknn.search.answers import Failure
    from patchknn.search.query import Query
    from patchknn.search.settings import SearchSettings

_FIGURES = ("ece", "ece_bias", "brier", "log_loss", "auroc")


def calibrate(
    archive: archive_options.Archive,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA…",
            help="Labelled image folders, manifests or tile sets; none: the archive's own rows.",
        ),
    ] = None,
    *,
    coverage: Annotated[
        float,
        typer.Option("--coverage", help="Share of prediction sets that hold the true class."),
    ] = 0.95,
    split: options.Split = None,
    k: Annotated[int, typer.Option("--k", help="Neighbours that vote.")] = 10,
    radius: options.Radius = 1,
    max_radius: options.MaxRadius = None,
    exclude_same: Annotated[
        Literal["none", "self", "slide", "patient"] | None,
        typer.Option(
            "--exclude-same", help="Leave out the query's own; default: patient, else slide."
        ),
    ] = None,
    labelled: options.LabelledRows = False,
    max_per: options.MaxPer = None,
    coarse: options.Coarse = "hamming",
    candidates: options.Candidates = 100,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=2, help="Ask at most N of its own rows.")
    ] = 20_000,
    seed: options.Seed = 0,
    slide_mpp: options.SlideMpp = None,
    default_mpp: options.DefaultMpp = None,
    slides: options.SlidesFolder = None,
    encoder: options.EncoderElsewhere = None,
    batch_size: options.BatchSize = 64,
    workers: options.Workers = None,
    device: options.Device = None,
    dry_run: options.DryRun = False,
    format: options.Format = None,
) -> int:
    """Find out what the confidence of answers means, and keep it for query --calibrated.

    Labelled DATA, or the archive's own rows without their patients, are asked; a correction of
    the confidence is fitted on some patients and judged on the others. Also kept: how large
    prediction sets must be for --coverage, and how far from those of other patients the archive's
    own rows lie. A new snapshot holds it, 'rollback' takes it back, and where rows or labels
    change it is said to be stale. Example: patchknn archive calibrate ARCHIVE --coverage 0.9
    """
    from patchknn.archive.calibration import store_calibration
    from patchknn.archive.snapshot import open_archive
    from patchknn.cli.archive_runs import ChangingRun
    from patchknn.errors import UsageError
    from patchknn.evaluation.calibration.calibrating import (
        answered,
        calibration_from,
        class_shares,
        unknown_classes,
    )
    from patchknn.evaluation.queries import names_patients
    from patchknn.search.settings import SearchSettings

    if not 0 < coverage < 1:
        message = f"--coverage {coverage} is not between 0 and 1."
        raise UsageError(message)
    if exclude_same == "none" and not data:
        message = "--exclude-same none: each of the archive's own rows would find itself."
        raise UsageError(message)
    snapshot = open_archive(archive)
    class_shares(snapshot)  # an archive without labels has no votes to calibrate
    other_patients = "patient" if names_patients(snapshot) else "slide"
    settings = SearchSettings(
        k=k,
        radius=radius,
        max_radius=max_radius,
        exclude_same=exclude_same or other_patients,
        labelled_only=labelled,
        max_per=max_per,
        coarse=coarse,
        candidates=candidates,
    )
    failures: list[Failure] = []
    style = console.output_format(format)
    with ChangingRun(archive, {"coverage": coverage, "seed": seed}, dry_run=dry_run) as run:
        at_home = None
        if data:
            given_apart = settings.exclude_same not in {"none", "self"}
            leaving = settings.exclude_same if given_apart else other_patients
            at_home = _answers_of_own(
                snapshot, settings._replace(exclude_same=leaving), sample, seed
            )
            embedding = {"device": device, "batch_size": batch_size, "workers": workers or 0}
            mpps = slide_mpp, default_mpp
            queries, total = _given(
                snapshot, data, settings, split, slides, encoder, mpps, embedding
            )
        else:
            queries, total = _own(snapshot, settings, sample, seed)
        queries = console.progress(queries, total=total, label="queries")
        outcomes = answered(snapshot, queries, settings, failures.append)
        _say_failed("queries", failures)
        for name, count in unknown_classes(snapshot, outcomes).items():
            console.warn(f"{archive} lacks class {name!r}: its queries ({count}) count as wrong.")
        if not data:
            _say_if_trained(snapshot)
        found = calibration_from(
            snapshot, outcomes, settings, coverage=coverage, at_home=at_home, seed=seed
        )
        number = None
        if not dry_run:
            number = store_calibration(archive, found, run_id=run.id).number
        if style == "table":
            _print_judged(found)
        summary = summary_of(found)
        if style != "ndjson":  # a cell cannot hold it
            del summary["abstain_below"]
        run.summarise(summary, number, style)
        _say_what_it_is_worth(found)
    return 0


def summary_of(calibration: Calibration) -> dict[str, Any]:
    """The figures on patients that the calibration had not seen, before it and after.

    ``abstain_below`` are the thresholds that gave a share of right answers on them.
    """
    before, after = (calibration.held_out[name] for name in ("confidence", calibration.method))
    sets = calibration.held_out["sets"]
    return {
        "queries": calibration.queries,
        "patients": calibration.patients,
        "method": calibration.method,
        "ece_before": before["ece"],
        "ece_after": after["ece"],
        "brier_before": before["brier"],
        "brier_after": after["brier"],
        "coverage": calibration.coverage,
        "coverage_held_out": sets["coverage"],
        "coverage_error": sets["error"],
        "set_size": sets["set_size"],
        "out_of_distribution": calibration.held_out.get("out_of_distribution"),
        "abstain_below": {
            share: None if found is None else found["threshold"]
            for share, found in calibration.held_out["accuracy_at"].items()
        },
    }


def _own(
    snapshot: Snapshot, settings: SearchSettings, sample: int, seed: int
) -> tuple[Iterator[Query | Failure], int]:
    from patchknn.evaluation.calibration.calibrating import own_queries
    from patchknn.evaluation.queries import count_archived

    by_slide = settings.exclude_same != "patient"
    total, _ = count_archived(snapshot)
    return own_queries(snapshot, sample, by_slide=by_slide, seed=seed), min(total, sample)


def _answers_of_own(
    snapshot: Snapshot, settings: SearchSettings, sample: int, seed: int
) -> Outcomes:
    from patchknn.evaluation.calibration.calibrating import answered

    failures: list[Failure] = []
    queries, total = _own(snapshot, settings, sample, seed)
    queries = console.progress(queries, total=total, label="own rows")
    outcomes = answered(snapshot, queries, settings, failures.append)
    _say_failed("rows of the archive", failures)
    return outcomes


def _say_if_trained(snapshot: Snapshot) -> None:
    training = snapshot.bundle().description.training
    if training.get("train_images") and training.get("loss") not in {None, "none"}:
        console.warn(
            "the encoder was trained, perhaps on patches of this archive, and is then surer of "
            "them than of others: calibrate by labelled DATA of other patients where there are any."
        )


def _say_failed(what: str, failures: list[Failure]) -> None:
    if failures:
        console.warn(f"{len(failures)} {what} have no answer; of the first: {failures[0].error}")


def _given(
    snapshot: Snapshot,
    data: list[str],
    settings: SearchSettings,
    split: str | None,
    slides: Path | None,
    encoder: Path | None,
    mpps: tuple[float | None, float | None],
    embedding: dict[str, Any],
) -> tuple[Iterator[Query | Failure], int]:
    from patchknn.datasets.listing import iter_patches
    from patchknn.encoder.devices import choose_device
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.evaluation.queries import archive_encoder, labelled_queries, labelled_set

    stored = snapshot.settings
    listed = iter_patches(
        data,
        size=stored.patch_px,
        mpp=stored.mpp,
        split=split,
        slides_dir=slides,
        slide_mpp=mpps[0],
        default_mpp=mpps[1],
    )
    asked = labelled_set(listed, settings.exclude_same)
    if asked.left_out:
        console.warn(f"patches without a label were left out: {asked.left_out}.")
    bundle, device = archive_encoder(snapshot, encoder), choose_device(embedding["device"])
    queries = labelled_queries(
        snapshot,
        asked.items,
        FeatureExtractor.from_bundle(bundle, device, stored.precision, stored.orientations),
        batch_size=embedding["batch_size"],
        workers=embedding["workers"],
        default_mpp=mpps[1],
    )
    return queries, len(asked.items)


def _print_judged(calibration: Calibration) -> None:
    from patchknn.evaluation.calibration.calibrate import METHODS

    held_out = calibration.held_out
    rows = [
        [f"{name} (taken)" if name == calibration.method else name]
        + [held_out[name][figure] for figure in _FIGURES]
        for name in ("confidence", "weighted_confidence", *METHODS)
    ]
    console.print_table(["on patients not seen", *_FIGURES], rows)
    columns = ("threshold", "coverage", "accuracy", "lower")
    console.print_table(
        ["to be right in", "--abstain-below", "answered", "right", "at least"],
        [
            [share, *(None if found is None else found[name] for name in columns)]
            for share, found in held_out["accuracy_at"].items()
        ],
    )


def _say_what_it_is_worth(calibration: Calibration) -> None:
    summary = summary_of(calibration)
    for name, figure in (("ECE", "ece"), ("Brier score", "brier")):
        before, after = summary[f"{figure}_before"], summary[f"{figure}_after"]
        if after >= before:
            console.warn(
                "on patients that it had not seen the calibrated confidence has no smaller "
                f"{name} than the share of votes ({after:.3g}, {before:.3g})."
            )
    strange = summary["out_of_distribution"]
    if calibration.nearest_limit is None:
        console.warn(
            "the archive's own rows find no others at a distance, so none is too far for it."
        )
    elif not calibration.own:
        console.message(
            f"{strange:.1%} of these queries lie further from the archive than 99 % of its own "
            "rows do from those of others."
        )
    if calibration.threshold is None:
        console.warn(
            f"{calibration.queries} queries are too few, or too often of classes that the archive "
            f"lacks, for --coverage {calibration.coverage}: every set will hold all classes."
        )
