"""The entry point: the table of commands, and how an error becomes a sentence and a code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from patchknn import __version__
from patchknn.cli import console
from patchknn.errors import PatchknnError, StoppedError

EXIT_INTERRUPTED = 130

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


def _print_version(wanted: bool) -> None:
    if wanted:
        console.write_text(f"patchknn {__version__}\n")
        raise typer.Exit


@app.callback()
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


def _register_commands() -> None:
    from patchknn.cli import (
        archive,
        demo,
        doctor,
        embed,
        evaluate,
        query,
        simulate,
        tile,
        train,
    )

    app.command("tile", short_help="Cut slides into tiles that hold tissue.")(tile.tile)
    app.command("train", short_help="Train an encoder, or fit codes to one as it is.")(train.train)
    app.command("embed", short_help="Embed patches and publish them in an archive.")(embed.embed)
    app.command("query", short_help="Find the nearest archived patches, votes, confidence.")(
        query.query
    )
    app.command("evaluate", short_help="Judge an archive by labelled patches.")(evaluate.evaluate)
    app.add_typer(
        archive.app, name="archive", short_help="What an archive holds, its history, is it whole?"
    )
    app.add_typer(simulate.app, name="simulate", short_help="Make synthetic data to try things on.")
    app.command("demo", short_help="Run the whole way on synthetic slides.")(demo.demo)
    app.command("doctor", short_help="Check this installation.")(doctor.doctor)


_register_commands()


def root_command() -> Any:
    """The tree of commands as typer builds it."""
    command = typer.main.get_command(app)
    _hide_variables(command)
    return command


def _hide_variables(command: Any) -> None:
    # One rule names them all (see the root's help); a line per option would only drown the help.
    for parameter in command.params:
        parameter.show_envvar = False
    for sub in getattr(command, "commands", {}).values():
        _hide_variables(sub)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors have been printed."""
    arguments, config_file, debug = _lift_root_options(arguments)
    extra: dict[str, Any] = {}
    try:
        command = root_command()
        if config_file is not None:
            from patchknn.cli.config import default_map

            extra["default_map"] = default_map(Path(config_file), _option_names(command))
        if "_PATCHKNN_COMPLETE" in os.environ:  # a shell asks for completions
            # Typer would render help texts with rich; they are plain, and Tab must not wait.
            sys.modules["rich"] = None  # type: ignore[assignment]
            command.main(arguments, prog_name="patchknn", **extra)
        with command.make_context("patchknn", arguments, **extra) as context:
            result = command.invoke(context)
    except typer.Exit as finished:
        return finished.exit_code
    except (PatchknnError, StoppedError) as error:
        if debug:
            raise
        console.fail(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.fail("interrupted; what was finished is kept, run the same command to go on.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        console.discard_stdout()
        return 0
    except Exception as error:
        if debug:
            raise
        return _explain(error)
    return result if isinstance(result, int) else 0


def entry() -> None:
    """The ``patchknn`` command."""
    # Spinning threads of OpenMP and OpenBLAS make every process on a shared node many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(run(sys.argv[1:]))


def _stop(number: int, _frame: object) -> None:
    name = signal.Signals(number).name
    message = f"stopped by {name}; what was finished is kept, run the same command to go on."
    raise StoppedError(message)


def _explain(error: Exception) -> int:
    if hasattr(error, "format_message"):  # typer's own family: a wrong command line
        if type(error).__name__ == "NoArgsIsHelpError":
            console.message(error.format_message())
            return 2
        context = getattr(error, "ctx", None)
        hint = f" See '{context.command_path} --help'." if context is not None else ""
        # "Value error, " is how pydantic, which typer checks values with, begins what it was told.
        sentence = error.format_message().replace(": Value error, ", ": ").rstrip(".")
        console.fail(f"{sentence}.{hint}")
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, OSError):
        thing = f"{error.filename}: " if error.filename else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            console.fail(
                f"{thing}the disk is full; free some space and run the same command again: "
                "what was finished is kept."
            )
        else:
            console.fail(f"{thing}{error.strerror or error}.")
        return 1
    if isinstance(error, MemoryError):
        console.fail("out of memory; use a smaller --batch-size or fewer --workers.")
        return 1
    console.fail(
        f"unexpected {type(error).__name__}: {error}; run again with --debug to see where, "
        "and please report it."
    )
    return 1


def _lift_root_options(arguments: list[str]) -> tuple[list[str], str | None, bool]:
    """Accept --config and --debug after the command too, where people write them."""
    rest: list[str] = []
    config_file = os.environ.get("PATCHKNN_CONFIG")
    debug = os.environ.get("PATCHKNN_DEBUG", "") not in {"", "0", "false"}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--":
            rest += [argument, *queue]
            break
        if argument == "--debug":
            debug = True
        elif argument == "--config" and queue:
            config_file = queue.pop(0)
        elif argument.startswith("--config="):
            config_file = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    return rest, config_file, debug


def _option_names(command: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            names[name] = _option_names(sub)
        else:
            names[name] = {parameter.name for parameter in sub.params}
    return names
