"""The table of commands, and the tree that typer builds of the one that is asked for."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from patchknn import __version__
from patchknn.cli import console

# A command is the function, a group the ``app``, of the module of its name.
_COMMANDS = {
    "tile": "Cut slides into tiles that hold tissue.",
    "train": "Train an encoder, or fit codes to one as it is.",
    "embed": "Embed patches and publish them in an archive.",
    "query": "Find the nearest archived patches, votes, confidence.",
    "evaluate": "Judge an archive by labelled patches.",
    "demo": "Run the whole way on synthetic slides.",
    "doctor": "Check this installation.",
}
_GROUPS = {
    "jobs": "How far the processes of a run are.",
    "archive": "What an archive holds, its history, is it whole?",
    "slide": "Whole slides: as grids, learnt from, beside each other.",
    "simulate": "Make synthetic data to try things on.",
    "weights": "Get pretrained weights for nodes without internet.",
}

_MAKERS = {"tile", "train", "embed", "evaluate", "simulate", "weights", "demo"}
_SLIDE_MAKERS = [["slide", name] for name in ("compress", "preview", "train", "predict")]


def root_command(only: str | None = None) -> Any:
    """The tree of commands as typer builds it.

    With ``only`` the others are in it by name and short help alone: their modules are not
    imported, nor their options looked at. A name that no command has leaves all of them so.
    """
    app = _root_app()
    for name, short_help in _COMMANDS.items():
        wanted = only is None or only == name
        function = getattr(_module(name), name) if wanted else _named_only
        app.command(name, short_help=short_help)(function)
    for name, short_help in _GROUPS.items():
        wanted = only is None or only == name
        group = _module(name).app if wanted else typer.Typer()
        app.add_typer(group, name=name, short_help=short_help)
    command = typer.main.get_command(app)
    _hide_variables(command)
    return command


def call(arguments: list[str], config_file: str | None) -> int:
    """Let typer read one command line and run it; its exit code.

    ``config_file`` is what ``--config`` says. Errors, typer's own among them, pass through; an
    end that a prompt was given is a KeyboardInterrupt.
    """
    completing = "_PATCHKNN_COMPLETE" in os.environ  # a shell asks for completions
    if completing or config_file is not None:
        command = root_command()  # a settings file may name the options of any command
    else:
        command = root_command(only=_asked_for(arguments))
    extra: dict[str, Any] = {}
    if config_file is not None:
        from patchknn.cli.config import default_map

        extra["default_map"] = default_map(Path(config_file), _option_names(command))
    try:
        if completing:
            # Typer would render help texts with rich; they are plain, and Tab must not wait.
            sys.modules["rich"] = None  # type: ignore[assignment]
            command.main(arguments, prog_name="patchknn", **extra)
        reader = console.outliving_reader() if _writes_files(arguments) else nullcontext()
        with command.make_context("patchknn", arguments, **extra) as context, reader:
            result = command.invoke(context)
    except typer.Exit as finished:
        return finished.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0


def _root_app() -> typer.Typer:
    app = typer.Typer(
        name="patchknn",
        rich_markup_mode=None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={
            "auto_envvar_prefix": "PATCHKNN",
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
        },
    )
    app.callback()(_root)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        console.write_text(f"patchknn {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.toml", help="Defaults, [COMMAND] by table."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Index histopathology patches; ask what a patch looks like, and how sure the answer is.

    Settings: a flag wins over PATCHKNN_COMMAND_OPTION in the environment, that over --config,
    that over the default. Exit codes: 0 done; 1 error, or damage found; 2 usage; 3 some inputs
    failed, the rest is done; 75 stopped with work saved, run again; 130 interrupted.
    """


def _module(name: str) -> Any:
    return import_module(f"patchknn.cli.{name}")


def _named_only() -> None:
    pass


def _asked_for(arguments: list[str]) -> str:
    # The root's own options are flags, as --config was taken out: the first word is the command.
    return next((word for word in arguments if not word.startswith("-")), "")


def _writes_files(arguments: list[str]) -> bool:
    """Whether a command is about the files that it makes, and not about what it prints."""
    words = [word for word in arguments if not word.startswith("-")]
    return bool(words) and (words[0] in _MAKERS or words[:2] in _SLIDE_MAKERS)


def _hide_variables(command: Any) -> None:
    # One rule names them all (see the root's help); a line per option would only drown the help.
    for parameter in command.params:
        parameter.show_envvar = False
    for sub in getattr(command, "commands", {}).values():
        _hide_variables(sub)


def _option_names(command: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            names[name] = _option_names(sub)
        else:
            names[name] = {parameter.name for parameter in sub.params}
    return names
