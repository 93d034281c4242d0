"""Run records: what was run, with which settings and versions, and what came of it."""

from __future__ import annotations

import os
import platform
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from patchknn import __version__
from patchknn.errors import InputError
from patchknn.files import read_json, write_json

RUNS = "runs"
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
# The folders of an absolute path within a sentence: it begins a word, and holds no blank.
_FOLDERS = re.compile(r"""(?<![^\s'"(=:,])/(?:[^/\s'"]+/)+""")
_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_PROCID",
    "SLURM_JOB_NAME",
    "SLURMD_NODENAME",
)
_PACKAGES = ("numpy", "torch", "timm", "torchvision", "zarr", "h5py", "openslide-python")


def new_run_id() -> str:
    """A name for a run that sorts by time: ``20260131T235959Z-0123456789ab``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"


def describe_run(
    argv: Sequence[str], settings: Mapping[str, Any], *, seed: int | None = None
) -> dict[str, Any]:
    """The start of a run's record: command line, settings, versions, Slurm ids, seed, time.

    Settings that JSON does not know (paths) become text. ``counts`` and ``failures`` are the
    caller's to fill in. Versions come from the packages' metadata: nothing is imported.
    """
    return {
        "argv": list(argv),
        "settings": {key: _plain(value) for key, value in settings.items()},
        "versions": {"patchknn": __version__, "python": platform.python_version(), **_versions()},
        "slurm": {name: os.environ[name] for name in _SLURM if name in os.environ},
        "host": platform.node(),
        "seed": seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": {},
        "failures": [],
    }


def write_run(path: Path, run_id: str, record: Mapping[str, Any], *, paths: bool = False) -> None:
    """Write or replace ``runs/<run_id>.json`` of the archive at ``path``, as a whole.

    Folders of absolute paths are left out of every text, unless ``paths``: they tell whose files
    are where.
    """
    if not _ID.fullmatch(run_id):
        message = f"{run_id!r} is no run id: letters, digits and hyphens, at most 64."
        raise InputError(message)
    folder = path / RUNS
    folder.mkdir(exist_ok=True)
    content = {"id": run_id, **_plain(record)}
    write_json(folder / f"{run_id}.json", content if paths else without_folders(content))


def remove_run(path: Path, run_id: str) -> None:
    """Delete the record of a run that came to nothing."""
    if _ID.fullmatch(run_id):
        (path / RUNS / f"{run_id}.json").unlink(missing_ok=True)


def read_run(path: Path, run_id: str) -> dict[str, Any] | None:
    """The record of a run, None where there is none that can be read: it only informs."""
    if not _ID.fullmatch(run_id):
        return None
    try:
        return read_json(path / RUNS / f"{run_id}.json")
    except (InputError, OSError):
        return None


def without_folders(value: Any) -> Any:
    """JSON without the folders of absolute paths in its texts: they tell whose files are where."""
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    if isinstance(value, str):
        option, separator, rest = value.partition("=")
        is_sentence = ": " in value or value.endswith(".")
        if Path(value).is_absolute() and not is_sentence:
            return f"…/{Path(value).name}"
        if separator and option.startswith("-") and Path(rest).is_absolute():
            return f"{option}=…/{Path(rest).name}"
        return _FOLDERS.sub("…/", value)
    return value


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, frozenset | set):
        return sorted(_plain(entry) for entry in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item"):  # a NumPy scalar
        return value.item()
    return str(value)
