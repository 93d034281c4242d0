"""``patchknn train``: labelled patches become an encoder bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchknn.cli import console
from patchknn.cli import train_options as options
from patchknn.cli.options import (
    Bits,
    DefaultMpp,
    Device,
    DryRun,
    Format,
    Mpp,
    Seed,
    Size,
    SlideMpp,
    SlidesFolder,
    Workers,
)
from patchknn.errors import UsageError

_SOME_INPUTS_FAILED = 3


def train(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA...",
            help="ImageFolders, manifests (CSV, TSV, Parquet with path,label[,patient,slide,"
            "split]), labelled tile sets, or - for paths on stdin.",
        ),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ENCODER", help="The encoder bundle.")
    ],
    backbone: options.Backbone = None,
    loss: options.Loss = "multitask",
    preset: options.Preset = None,
    pretrained: options.Pretrained = False,
    weights: options.Weights = None,
    from_encoder: options.FromEncoder = None,
    model_arg: options.ModelArg = None,
    mean: options.Mean = None,
    std: options.Std = None,
    features: options.Features = False,
    labels: options.Labels = None,
    hidden: options.Hidden = 512,
    output_dim: options.OutputDim = 256,
    size: Size = 224,
    crop: options.Crop = 1.0,
    bits: Bits = 48,
    epochs: options.Epochs = None,
    head_epochs: options.HeadEpochs = None,
    patience: options.Patience = None,
    classes_per_batch: options.ClassesPerBatch = None,
    per_class: options.PerClass = None,
    task: options.Tasks = None,
    task_weight: options.TaskWeights = None,
    split: options.Split = None,
    val_split: options.ValSplit = None,
    validation: options.Validation = None,
    max_bad: options.MaxBad = "5%",
    class_weights: options.ClassWeights = "none",
    label_smoothing: options.LabelSmoothing = 0.0,
    augment: options.Augment = "tissue",
    optimizer: options.Optimizer = "adamw",
    lr: options.Lr = None,
    backbone_lr: options.BackboneLr = None,
    weight_decay: options.WeightDecay = None,
    momentum: options.Momentum = 0.9,
    schedule: options.Schedule = "cosine",
    step_epochs: options.StepEpochs = 20,
    step_factor: options.StepFactor = 0.5,
    warmup: options.Warmup = 0.05,
    clip_norm: options.ClipNorm = 5.0,
    accumulate: options.Accumulate = 1,
    ema: options.Ema = 0.0,
    freeze_batch_norm: options.FreezeBatchNorm = "auto",
    precision: options.Precision = None,
    compile: options.Compile = False,
    device: Device = None,
    alpha: options.Alpha = None,
    positives: options.Positives = 5,
    negatives: options.Negatives = 5,
    bank: options.Bank = None,
    margin: options.Margin = None,
    mining: options.Mining = "semi-hard",
    normalize: options.Normalize = None,
    w_t: options.TripletWeight = 1.0,
    w_c: options.CauchyWeight = 1.0,
    w_q: options.QuantizationWeight = 1.0,
    w_ce: options.ClassificationWeight = None,
    gamma: options.Gamma = None,
    cauchy_distance: options.CauchyDistance = "euclidean",
    quantization: options.Quantization = "sound",
    mpp: Mpp = None,
    slide_mpp: SlideMpp = None,
    default_mpp: DefaultMpp = None,
    slides: SlidesFolder = None,
    workers: Workers = None,
    tensorboard: options.TensorBoard = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    format: Format = None,
) -> int:
    """Train an encoder that puts patches of a class next to each other, and write its bundle.

    Stopped or killed, the same command goes on where it was; started by torchrun or srun, the
    processes train together. The epoch whose validation images find most neighbours of their
    class is kept; training.csv in the bundle tells of all.
    """
    from patchknn.cli.train_data import read_data
    from patchknn.cli.train_output import say_plan, show_result
    from patchknn.cli.train_settings import settings_of
    from patchknn.training.fit import select_patches, train_encoder
    from patchknn.training.ranks import first_started
    from patchknn.training.selection import SplitChoice

    settings = settings_of(context)
    if validation and (split is not None or val_split is not None):
        message = "--validation gives the images to judge by; leave --split and --val-split away."
        raise UsageError(message)
    choice = SplitChoice.parse(split, val_split)
    reading = {"slide_mpp": slide_mpp, "default_mpp": default_mpp, "slides_dir": slides}
    read = read_data(settings, reading, data or [], task or [], validation or [], labels)
    if dry_run:
        selections = select_patches(read.patches, read.settings, choice, read.validation)
        say_plan(selections, read.settings, choice)
        return _SOME_INPUTS_FAILED if read.problems else 0
    result = train_encoder(
        read.patches,
        read.settings,
        output,
        console.message if first_started() else _nothing,
        choice=choice,
        validation=read.validation,
        stored=read.stored,
        progress=console.progress,
    )
    failed = [*read.problems, *result.problems]
    if not first_started():
        return 0  # torchrun ends all at the first exit that is not 0: the other's is still to come
    show_result(result, output, failed, console.output_format(format))
    return _SOME_INPUTS_FAILED if failed else 0


def _nothing(_: str) -> None:
    """What the other processes of a run say."""
