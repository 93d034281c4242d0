"""Options that mean the same thing in every command of ``patchknn archive``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Archive = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Folder of the archive.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=0, max=sys.maxsize, help="Stop after N lines."),
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", metavar="ID", help="A patch; repeatable; '-' reads ids from stdin."),
]
Slides = Annotated[
    list[str] | None,
    typer.Option("--slide", metavar="NAME", help="A slide or image; repeatable; '-' as above."),
]
Patients = Annotated[
    list[str] | None,
    typer.Option("--patient", metavar="NAME", help="All of a patient; repeatable; '-' as above."),
]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="All of slides whose records make this true."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="CLASS", help="Of these only rows of this class; repeatable."),
]
IgnoreMissing = Annotated[
    bool, typer.Option("--ignore-missing", help="Exit 0 though something named is not there.")
]
