"""The options of ``train``, by what they are about; each one's name is a field of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# Where to start.
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone", metavar="NAME", help="Any timm model, hf-hub:, local-dir:, or nic_cnn."
    ),
]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Start from timm's own weights (downloads).")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Start from a state dict, such as 'patchknn weights fetch' writes; no network.",
    ),
]
FromEncoder = Annotated[
    Path | None,
    typer.Option("--from", metavar="ENCODER", help="Start from an encoder (deep kNN* of paper B)."),
]
ModelArg = Annotated[
    list[str] | None,
    typer.Option("--model-arg", metavar="NAME=VALUE", help="Passed to timm; repeatable."),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="R,G,B", help="Of images in [0, 1] [the backbone's own]."),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="R,G,B", help="Of images in [0, 1] [the backbone's own]."),
]
Features = Annotated[
    bool,
    typer.Option(
        "--features",
        help="DATA are archives or HDF5 of TRIDENT, CLAM, STAMP: train an MLP on their features.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="TABLE", help="Labels of --features: slide,label[,x,y,...]."),
]
Hidden = Annotated[int, typer.Option("--hidden", min=1, help="Width of the MLP's two layers.")]
OutputDim = Annotated[int, typer.Option("--output-dim", min=1, help="Features that the MLP gives.")]

# What to learn from.
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="T/V[/T]|NAME|none",
        help="Make splits by patient (70/15/15; they are written beside ENCODER), or train "
        "on a split of the manifest, or on all. Default: the manifest's, else 85/15.",
    ),
]
ValSplit = Annotated[
    str | None,
    typer.Option("--val-split", metavar="NAME", help="The manifest's split to judge by."),
]
Validation = Annotated[
    list[str] | None,
    typer.Option("--validation", metavar="DATA", help="Judge epochs by these; repeatable."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="NAME=DATA",
        help="One of several data sets for one encoder (paper C), the one that answers first; "
        "repeatable, also with the same NAME.",
    ),
]
TaskWeights = Annotated[
    list[str] | None,
    typer.Option("--task-weight", metavar="NAME=WEIGHT", help="In the loss [1]; repeatable."),
]
ClassWeights = Annotated[
    Literal["none", "balanced"],
    typer.Option("--class-weights", help="In the cross-entropy: balanced by class frequency."),
]
LabelSmoothing = Annotated[
    float,
    typer.Option("--label-smoothing", help="In the cross-entropy: share spread over all classes."),
]
ClassesPerBatch = Annotated[
    int | None, typer.Option("--classes-per-batch", min=1, help="[all, at most 16]")
]
PerClass = Annotated[
    int | None,
    typer.Option("--per-class", min=1, help="Images of each class in a batch [64/classes]."),
]
Augment = Annotated[
    str,
    typer.Option(
        "--augment",
        metavar="RECIPE",
        help="none; flip (paper B); light: flips and right-angle turns; colour: also zoom and "
        "colour; tissue: also H&E stain.",
    ),
]
Crop = Annotated[
    float,
    typer.Option(
        "--crop",
        help="Share of a plain image's short side that is looked at: windows of it in training, "
        "the centre afterwards (paper B: 0.875); 1: all of it.",
    ),
]
MaxBad = Annotated[
    str, typer.Option("--max-bad", metavar="N|P%", help="Unreadable images to go on with.")
]

# How long, how fast, how far.
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=0,
        help="Passes over the images, whole network [20; above 10,000 images fewer, at least 5].",
    ),
]
HeadEpochs = Annotated[
    int | None, typer.Option("--head-epochs", min=0, help="Before that, new layers alone [5 or 0].")
]
Patience = Annotated[
    int | None,
    typer.Option("--patience", min=1, help="Epochs without a better P@10, then end [never]."),
]
Optimizer = Annotated[str, typer.Option("--optimizer", help="adamw or sgd.")]
Lr = Annotated[float | None, typer.Option("--lr", help="Rate of the new layers [1e-3; sgd 0.01].")]
BackboneLr = Annotated[
    float | None,
    typer.Option("--backbone-lr", help="Rate of the backbone [3e-4 from weights, else --lr]."),
]
WeightDecay = Annotated[float | None, typer.Option("--weight-decay", help="[0.01; sgd 1e-4]")]
Momentum = Annotated[float, typer.Option("--momentum", help="Of sgd.")]
Schedule = Annotated[str, typer.Option("--schedule", help="cosine, or step.")]
StepEpochs = Annotated[int, typer.Option("--step-epochs", min=1, help="Epochs of one step.")]
StepFactor = Annotated[float, typer.Option("--step-factor", help="What rates shrink by in a step.")]
Warmup = Annotated[
    float, typer.Option("--warmup", min=0, max=1, help="Share of steps in which rates rise.")
]
ClipNorm = Annotated[
    float, typer.Option("--clip-norm", min=0, help="Largest gradient norm; 0: any.")
]
Accumulate = Annotated[
    int, typer.Option("--accumulate", min=1, help="Batches of one step; triplets stay in a batch.")
]
Ema = Annotated[
    float, typer.Option("--ema", help="Keep an average of the weights: its decay; 0: none.")
]
FreezeBatchNorm = Annotated[
    Literal["auto", "yes", "no"],
    typer.Option("--freeze-batch-norm", help="auto: where the backbone starts from weights."),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="float32, bfloat16 or float16 [by the device]."),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="torch.compile the network: slow to start, then faster.")
]
TensorBoard = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Also write TensorBoard events.")
]

# The losses.
Loss = Annotated[
    str,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="multitask (paper A), deep-knn (paper B), cross-entropy, triplet, or none: "
        "keep the backbone and fit codes by ITQ.",
    ),
]
Preset = Annotated[
    Literal["paper-a", "paper-b"] | None,
    typer.Option("--preset", help="Settings as a paper prints them; your own flags go before."),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha", min=0, help="Margin of deep kNN (paper B, Eq. 1) [0.2; not normalised 2]."
    ),
]
Positives = Annotated[
    int, typer.Option("--positives", min=1, help="K of deep kNN: neighbours of the class.")
]
Negatives = Annotated[
    int, typer.Option("--negatives", min=1, help="M of deep kNN: neighbours of others.")
]
Bank = Annotated[
    int | None,
    typer.Option(
        "--bank",
        metavar="BATCHES",
        min=1,
        help="Deep kNN: neighbours from all training images, embedded again so often [in batch].",
    ),
]
Margin = Annotated[
    float | None, typer.Option("--margin", min=0, help="Of the triplet loss [soft].")
]
Mining = Annotated[
    str,
    typer.Option(
        "--mining",
        help="Of the triplet loss: semi-hard, batch-hard (may collapse), easy-positive or all.",
    ),
]
Normalize = Annotated[
    bool | None,
    typer.Option(
        "--normalize/--no-normalize",
        help="Features of unit length, in training and in search: of deep kNN, triplet or no loss "
        "[deep kNN only].",
    ),
]
TripletWeight = Annotated[float, typer.Option("--w-t", min=0, help="Multitask: triplet ratio.")]
CauchyWeight = Annotated[
    float, typer.Option("--w-c", min=0, help="Multitask: Cauchy cross-entropy.")
]
QuantizationWeight = Annotated[
    float, typer.Option("--w-q", min=0, help="Multitask: Cauchy quantisation.")
]
ClassificationWeight = Annotated[
    float | None,
    typer.Option(
        "--w-ce",
        min=0,
        help="Multitask: classification [1]. Beside deep kNN or triplet: the same on codes learnt "
        "with it [0].",
    ),
]
Gamma = Annotated[float | None, typer.Option("--gamma", help="Multitask: scale of both [bits/2].")]
CauchyDistance = Annotated[
    Literal["euclidean", "cosine"],
    typer.Option("--cauchy-distance", help="Multitask: as in paper A, or as in Cao 2018."),
]
Quantization = Annotated[
    Literal["sound", "literal"],
    typer.Option("--quantization", help="Multitask: literal is as printed, and collapses."),
]
