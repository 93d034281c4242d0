"""``patchknn weights``: pretrained weights for where no network is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from patchknn.cli import console, options
from patchknn.cli.train_options import ModelArg

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

_COLUMNS = ("name", "path", "bytes", "sha256", "license", "origin")


@app.callback()
def _group() -> None:
    """Get pretrained weights where a network is, for where none is."""


@app.command("fetch")
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="As of train --backbone: a timm model, hf-hub:owner/model, local-dir:FOLDER.",
        ),
    ],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for NAME.safetensors; made if missing.")
    ],
    *,
    model_arg: ModelArg = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    format: options.Format = None,
) -> int:
    """Write a backbone's pretrained weights to a file, which train --weights takes.

    To be run on a node with internet, such as a login node; compute nodes then need none. For a
    gated model set HF_TOKEN. A file that is there and whole is kept. The Hugging Face cache
    (HF_HOME) is filled on the way: on nodes that share it, train --pretrained finds the weights
    too, at once with HF_HUB_OFFLINE=1.
    """
    from patchknn.encoder.backbones import model_arg_options, parse_model_args
    from patchknn.encoder.fetching import fetch_weights

    model_args = parse_model_args(model_arg or ())
    fetched = fetch_weights(name, directory, model_args=model_args, force=force)
    told = fetched.description
    row = {
        "name": told.name,
        "path": str(fetched.file),
        "bytes": fetched.bytes,
        "sha256": fetched.sha256,
        "license": told.license,
        "origin": told.origin,
    }
    console.write_rows([row], _COLUMNS, console.output_format(format))
    done = "was there and is kept (--force fetches it again)" if fetched.kept else "is fetched"
    console.message(
        f"weights: {fetched.file} {done}; on compute nodes: patchknn train DATA -o ENCODER "
        f"--backbone {shlex.quote(name)} --weights {shlex.quote(str(fetched.file))}"
        f"{model_arg_options(model_args)}"
    )
    return 0
