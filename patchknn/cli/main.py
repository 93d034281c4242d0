"""The entry point, and how an error becomes a sentence and a code."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from patchknn.cli import console
from patchknn.cli.archive_info import read_plain_info, show_info
from patchknn.cli.query_plain import read_plain
from patchknn.errors import PatchknnError, StoppedError

EXIT_INTERRUPTED = 130
_INTERRUPTED = "interrupted; what was finished is kept, run the same command to go on."


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors have been printed."""
    arguments, config_file, debug = _lift_root_options(arguments)
    try:
        plain = None if config_file is not None else read_plain(arguments, os.environ)
        if plain is not None:
            from patchknn.cli.query_run import run_plain

            _end_of_imports()
            return run_plain(plain)
        info = None if config_file is not None else read_plain_info(arguments, os.environ)
        if info is not None:
            _end_of_imports()
            return show_info(*info)
        from patchknn.cli.app import call

        _end_of_imports()
        return call(arguments, config_file)
    except (PatchknnError, StoppedError) as error:
        if debug:
            raise
        console.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.fail(_INTERRUPTED)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        console.discard_stdout()
        return 0
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def entry() -> None:
    """The ``patchknn`` command."""
    # Spinning threads of OpenMP and OpenBLAS make every process on a shared node many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not with nohup
        signal.signal(signal.SIGINT, _interrupt)
    if hasattr(signal, "SIGUSR1"):  # Slurm's --signal=USR1, which otherwise ends without a word
        signal.signal(signal.SIGUSR1, _stop)
    gc.disable()  # until the end of the imports, which leave nothing to collect
    sys.exit(run(sys.argv[1:]))


def _end_of_imports() -> None:
    if not gc.isenabled():
        gc.freeze()  # what was imported stays to the end: nobody need look through it again
        gc.enable()


def _stop(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    message = f"stopped by {name}; what was finished is kept, run the same command to go on."
    _leave_import(frame, message, StoppedError.exit_code)
    raise StoppedError(message)


def _interrupt(_: int, frame: FrameType | None) -> None:
    _leave_import(frame, _INTERRUPTED, EXIT_INTERRUPTED)
    raise KeyboardInterrupt


def _leave_import(frame: FrameType | None, message: str, code: int) -> None:
    """End at once where a module is being imported, which on a cold file system takes a minute.

    An exception would unwind through the C++ of torch, which aborts the process with code 134.
    """
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is not None:
        console.fail(message)
        with suppress(OSError, RuntimeError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _explain(error: Exception) -> int:
    if hasattr(error, "format_message"):  # typer's own family: a wrong command line
        if type(error).__name__ == "NoArgsIsHelpError":
            console.lines(error.format_message())
            return 2
        context = getattr(error, "ctx", None)
        hint = f" See '{context.command_path} --help'." if context is not None else ""
        # "Value error, " is how pydantic, which typer checks values with, begins what it was told.
        words = " ".join(error.format_message().split())  # choices stand on lines of their own
        sentence = words.replace(": Value error, ", ": ").rstrip(".")
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
