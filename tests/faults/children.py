"""The program that forks the children: their tasks, and the hooks that kill and starve them."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import array_job
import corruptions
import forks
import many
import observed
import steps
from operations import OPERATIONS

from patchknn.archive.manifests import manifest_numbers
from patchknn.archive.writer import ArchiveWriter


def operate(arguments: dict[str, Any], tell: forks.Tell) -> None:
    """Do one operation after the other; of each it is told when it begins and when it is done.

    ``fault``: what happens at which step, as ``steps.arm`` takes it.
    """
    path = Path(arguments["archive"])
    _prepare(arguments, path)
    for number, (name, asked) in enumerate(arguments["operations"]):
        tell(["begin", number])
        OPERATIONS[name].run(path, asked)
        tell(["done", number, manifest_numbers(path)[-1]])
    tell(["steps", steps.counted()])


def command(arguments: dict[str, Any], tell: forks.Tell) -> None:
    """One command line of patchknn: its exit code; what it prints is in the reply's ``err``.

    With ``publications`` each snapshot that it adds rows by is told of as soon as it is there.
    """
    from patchknn.cli.main import run

    if arguments.get("publications"):
        _tell_of_publications(tell)
    _prepare(arguments, Path(arguments["archive"]))
    sys.argv = ["patchknn", *arguments["command"]]
    code = run(arguments["command"])
    gc.collect()  # what fails while it is thrown away fails here
    tell(["exit", code])
    tell(["steps", steps.counted()])


def commands(arguments: dict[str, Any], tell: forks.Tell) -> None:
    """Command lines of patchknn one after the other: exit code, stdout and stderr of each.

    ``first``: command lines that import what another user may not read.
    """
    from patchknn.cli.main import run

    for words in arguments.get("first", ()):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run(words)
    _prepare(arguments, Path(arguments["archive"]))
    if "memory" in arguments:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (arguments["memory"], arguments["memory"]))
    for number, words in enumerate(arguments["commands"]):
        tell(["begin", number])
        out, err = io.StringIO(), io.StringIO()
        sys.argv = ["patchknn", *words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(words)
        tell(["exit", number, code, out.getvalue(), err.getvalue()])


def corrupt(arguments: dict[str, Any], tell: forks.Tell) -> None:
    """Do one corruption after the other to an archive; what verify and a reader say of each."""
    path, aside = Path(arguments["archive"]), Path(arguments["aside"])
    for number, corruption in enumerate(arguments["corruptions"]):
        tell(["begin", number])
        with corruptions.corrupted(path, corruption, aside):
            result = {
                "verify": observed.examine(path),
                "learnt": observed.observe(path, arguments["older"]),
            }
        tell(["result", number, result])


def at_once(arguments: dict[str, Any], tell: forks.Tell) -> None:
    """Many processes at one archive: what each of them has done."""
    path, other = Path(arguments["archive"]), Path(arguments["other"])
    asked = (arguments["seconds"], arguments["readers"], arguments["writers"])
    for result in many.at_once(path, other, *asked):
        tell(result)


def array(arguments: dict[str, Any], tell: forks.Tell) -> None:
    """One command line in many processes, some of them killed: how they ended, what they had."""
    path = Path(arguments["archive"])
    kills = [array_job.Kill(*kill) for kill in arguments["kills"]]
    tell(array_job.run_array(path, arguments["command"], arguments["count"], kills))


def _prepare(arguments: dict[str, Any], path: Path) -> None:
    if arguments.get("file_size") is not None:
        import resource

        limit = arguments["file_size"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if arguments.get("user") is not None:
        os.setgroups([])
        os.setgid(arguments["user"])
        os.setuid(arguments["user"])
    if arguments.get("fault") is not None:
        steps.arm(path, **arguments["fault"])


def _tell_of_publications(tell: forks.Tell) -> None:
    usual = ArchiveWriter.publish

    def publish(writer: ArchiveWriter) -> int | None:
        number = usual(writer)
        if number is not None:
            tell(["published", number])
        return number

    ArchiveWriter.publish = publish  # type: ignore[method-assign]


def _import_what_embeds() -> None:
    # Nothing is computed here: threads that compute do not live on in a child.
    os.environ["OMP_NUM_THREADS"] = "1"
    import tifffile  # noqa: F401
    import timm  # noqa: F401
    import typer._adapters  # noqa: F401

    import patchknn.cli.embed
    import patchknn.indexing.build  # noqa: F401


TASKS: dict[str, forks.Task] = {
    "operate": operate,
    "command": command,
    "corrupt": corrupt,
    "commands": commands,
    "at once": at_once,
    "array": array,
}


if __name__ == "__main__":
    # What a child would otherwise import each time.
    import duckdb  # noqa: F401
    import h5py  # noqa: F401
    import numpy.ma  # noqa: F401  np.unique does

    import patchknn.cli.app
    import patchknn.cli.archive  # noqa: F401

    if "--torch" in sys.argv[1:]:
        _import_what_embeds()
    gc.freeze()  # a child need not look through all of this, nor copy its pages for that
    forks.serve(TASKS)
