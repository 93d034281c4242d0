"""What every command shares: help, settings, errors and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchknn.cli import app, main
from patchknn.errors import ConflictError, StoppedError

_README = Path(__file__).resolve().parents[2] / "README.md"


def _walk(command, path=()):
    for name, sub in getattr(command, "commands", {}).items():
        yield (*path, name), sub
        yield from _walk(sub, (*path, name))


_COMMANDS = dict(_walk(app.root_command()))


def _python(program: str, *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )


def test_help_imports_typer_and_the_standard_library_only():
    program = """
import sys
from patchknn.cli.main import run
assert run(["--help"]) == 0
heavy = {"torch", "numpy", "zarr", "rich", "h5py", "PIL", "timm", "tqdm", "duckdb"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    finished = _python(program)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.strip() == "[]"
    assert "query" in finished.stdout


@pytest.mark.parametrize("path", _COMMANDS, ids=" ".join)
def test_every_command_has_help_for_itself_and_for_each_option(path, patchknn):
    command = _COMMANDS[path]
    result = patchknn(*path, "--help")
    assert result.code == 0
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} has no help"


@pytest.mark.parametrize("path", [p for p, c in _COMMANDS.items() if not hasattr(c, "commands")])
def test_every_command_is_in_the_readme(path):
    assert f"patchknn {' '.join(path)}" in _README.read_text(encoding="utf-8")


def test_an_unknown_option_is_a_usage_error_with_a_hint(patchknn):
    result = patchknn("doctor", "--formt", "tsv")
    assert result.code == 2
    assert "--format" in result.err
    assert "patchknn doctor --help" in result.err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["doctor", "--format", "xml"], "'xml' is not one of 'table', 'tsv', 'ndjson'."),
        (["archive", "list", "a", "--limit", "-1"], "should be greater than or equal to 0."),
        (
            ["archive", "list", "a", "--limit", str(10**20)],
            "less than or equal to 9223372036854775807.",
        ),
        (["train", "d", "-o", "e", "--seed", "-1"], "greater than or equal to 0."),
        (["tile"], "Missing argument 'SLIDES...'."),
    ],
)
def test_wrong_values_are_two_sentences(patchknn, line, sentence):
    result = patchknn(*line)
    assert result.code == 2
    assert f"{sentence} See 'patchknn {' '.join(line[: 1 + (line[0] == 'archive')])} --help'." in (
        result.err
    )
    assert "Value error" not in result.err


def test_settings_come_from_flag_then_variable_then_file_then_default(
    patchknn, tmp_path, monkeypatch
):
    config = tmp_path / "settings.toml"
    config.write_text('[doctor]\nformat = "tsv"\n')
    folder = tmp_path / "absent"
    from_file = patchknn("doctor", folder, "--config", config)
    assert from_file.out.startswith("check\tstatus\t")
    with monkeypatch.context() as environment:
        environment.setenv("PATCHKNN_CONFIG", str(config))
        assert patchknn("doctor", folder).out == from_file.out
    monkeypatch.setenv("PATCHKNN_DOCTOR_FORMAT", "ndjson")
    assert patchknn("doctor", folder, "--config", config).out.startswith("{")
    from_flag = patchknn("doctor", folder, "--config", config, "--format", "tsv")
    assert from_flag.out.startswith("check\tstatus\t")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[doctor]\nfromat = 'tsv'\n",
            "'fromat' is not a setting of doctor; did you mean 'format'?",
        ),
        ("[docter]\n", "'docter' is not a setting of patchknn; did you mean 'doctor'?"),
        ("[doctor\n", "is not valid TOML"),
    ],
)
def test_a_wrong_settings_file_is_named(patchknn, tmp_path, text, sentence):
    config = tmp_path / "settings.toml"
    config.write_text(text)
    result = patchknn("doctor", "--config", config)
    assert result.code == 2
    assert sentence in result.err
    assert str(config) in result.err


def test_choices_that_are_missing_stand_on_one_line(patchknn, tmp_path):
    told = patchknn("archive", "records", "attach", tmp_path, tmp_path / "t.csv")
    assert told.code == 2
    assert "Missing option '--key'. Choose from: patient, slide." in told.err


def test_a_reader_that_has_seen_enough_ends_no_work(tmp_path):
    """``| head -1`` of a command that writes files; of one that only prints it ends it."""
    line = [sys.executable, "-m", "patchknn", "simulate", "slides", str(tmp_path / "s")]
    line += ["--slides", "4", "--patients", "2", "--size-px", "768", "--format", "ndjson"]
    read, write = os.pipe()
    os.close(read)
    finished = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert finished.returncode == 0
    assert finished.stderr.count("whoever read stdout is gone; the work goes on.") == 1
    assert len(list((tmp_path / "s").glob("*.tiff"))) == 4
    assert (tmp_path / "s" / "slides.csv").exists()


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ConflictError("a.svs and b.svs differ."), 1, "patchknn: a.svs and b.svs differ."),
        (StoppedError("stopped."), 75, "patchknn: stopped."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
        (OSError(28, "No space left on device", "x.zarr"), 1, "x.zarr: the disk is full"),
        (PermissionError(13, "Permission denied", "x"), 1, "x: Permission denied."),
        (ZeroDivisionError("0/0"), 1, "unexpected ZeroDivisionError: 0/0"),
    ],
)
def test_each_error_becomes_one_line_and_a_code(monkeypatch, capfd, error, code, sentence):
    def fail(_: object) -> object:
        raise error

    monkeypatch.setattr("patchknn.cli.doctor._checks", fail)
    monkeypatch.setattr("patchknn.cli.console.discard_stdout", lambda: None)
    assert main.run(["doctor"]) == code
    err = capfd.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr("patchknn.cli.doctor._checks", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.run(["doctor", "--debug"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_that_asks_for_an_end_exits_75(name):
    program = f"""
import os, signal, patchknn.cli.doctor as doctor
doctor._checks = lambda paths: os.kill(os.getpid(), signal.{name}) or iter(())
import sys; sys.argv = ["patchknn", "doctor"]
from patchknn.cli.main import entry
entry()
"""
    finished = _python(program)
    assert finished.returncode == 75
    assert f"stopped by {name}" in finished.stderr


def test_a_closed_pipe_is_silent():
    command = f"{sys.executable} -m patchknn doctor --format ndjson | true"
    finished = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert finished.stderr == ""


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [("SIGTERM", 75, "stopped by SIGTERM"), ("SIGINT", 130, "interrupted")],
)
def test_a_signal_during_an_import_does_not_unwind_through_the_module(tmp_path, name, code, words):
    # torch's C++ aborts the process where an exception comes out of what it calls.
    (tmp_path / "module.py").write_text(
        f"""
import os, signal, time
try:
    os.kill(os.getpid(), signal.{name})
    time.sleep(30)
except BaseException:
    os.abort()
"""
    )
    program = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from patchknn.cli import main
main.run = lambda _: __import__("module")
print("what was said before")
main.entry()
"""
    ended = _python(
        program, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.pathsep.join(sys.path)}"}
    )
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert ended.stdout == "what was said before\n"


def test_a_signal_outside_of_imports_is_an_exception_as_ever():
    program = """
import os, signal
from patchknn.cli import main
from patchknn.errors import StoppedError
def run(_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except StoppedError:
        return 7
main.run = run
main.entry()
"""
    assert _python(program).returncode == 7


@pytest.mark.parametrize("arguments", [[], ["archive"]])
def test_without_a_command_the_help_has_its_lines(capsys, arguments):
    assert main.run(arguments) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) > 5
    assert "\\n" not in told
