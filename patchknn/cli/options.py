"""Options that mean the same thing in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Annotated[
    Literal["table", "tsv", "ndjson"] | None,
    typer.Option("--format", help="Default: table on a terminal, ndjson in a pipe."),
]
Size = Annotated[
    int, typer.Option("--size", metavar="PX", min=8, help="Patch and input size in pixels.")
]
Bits = Annotated[int, typer.Option("--bits", min=8, max=1024, help="Hash bits, a multiple of 8.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything left to chance.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Reader processes; default: the CPUs one may use."),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, max=1 << 20, help="Patches per forward pass.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if any.")
]
Split = Annotated[
    str | None, typer.Option("--split", help="Only rows of a manifest with this split.")
]
SlidesFolder = Annotated[
    Path | None,
    typer.Option(
        "--slides",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Where slides of tile sets lie now.",
    ),
]
Mpp = Annotated[
    float | None, typer.Option("--mpp", min=0.05, max=20.0, help="Target µm per pixel.")
]
SlideMpp = Annotated[
    float | None,
    typer.Option(
        "--slide-mpp", min=0.05, max=2.0, help="µm/px at level 0, against the slide's own."
    ),
]
DefaultMpp = Annotated[
    float | None,
    typer.Option(
        "--default-mpp", min=0.05, max=2.0, help="µm/px at level 0 where a slide has none."
    ),
]
ImageMpp = Annotated[
    float | None,
    typer.Option("--image-mpp", min=0.05, max=20.0, help="µm/px of plain images, to be resampled."),
]
AllowUpsample = Annotated[
    bool, typer.Option("--allow-upsample", help="Let the target be finer than the slide.")
]
MinTissue = Annotated[
    float,
    typer.Option("--min-tissue", min=0, max=1, help="Share of tissue in a slide's tiles."),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="torch.compile the network: slow to start, then faster."),
]
Private = Annotated[
    bool,
    typer.Option("--private", help="New files and folders are their owner's only; else by umask."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]
At = Annotated[
    int | None,
    typer.Option("--at", metavar="N", min=0, help="Snapshot N of the archive, not the newest."),
]
Radius = Annotated[
    int, typer.Option("--radius", help="Hamming radius of the ball in bits, inclusive.")
]
MaxRadius = Annotated[
    int | None,
    typer.Option("--max-radius", help="Widen up to this; default: a quarter of the bits."),
]
MaxPer = Annotated[
    tuple[str, int] | None,
    typer.Option(
        "--max-per", metavar="slide|patient N", help="At most N neighbours of each of these."
    ),
]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only rows whose records make this true."),
]
Fields = Annotated[
    str | None,
    typer.Option("--fields", metavar="A,B,…", help="Fields of records beside each neighbour."),
]
LabelledRows = Annotated[bool, typer.Option("--labelled", help="Only rows with a label.")]
Coarse = Annotated[
    Literal["hamming", "l2", "annoy"],
    typer.Option("--coarse", help="First stage: the ball, or L2 on hash vectors (baseline)."),
]
Candidates = Annotated[
    int, typer.Option("--candidates", help="Rows that --coarse l2 and annoy pass on.")
]
EncoderElsewhere = Annotated[
    Path | None,
    typer.Option("--encoder", metavar="DIR", help="The archive's encoder, if kept elsewhere."),
]
Calibrated = Annotated[
    bool, typer.Option("--calibrated", help="Confidence by 'archive calibrate'; classes it may be.")
]
Retries = Annotated[
    int, typer.Option("--retries", min=0, help="How often what failed is tried again, in the end.")
]
OnlyFailed = Annotated[
    bool, typer.Option("--only-failed", help="Only what 'patchknn jobs status' calls failed.")
]
Dask = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS|FILE|local:N",
        help="Let the workers of a Dask cluster do it: its scheduler's address or file.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Write a page that shows queries and neighbours."),
]
ReportQueries = Annotated[
    int, typer.Option("--report-queries", metavar="N", help="Queries that --report shows.")
]
