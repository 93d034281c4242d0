"""Settings from ``--config FILE.toml``: defaults below the flags and the PATCHKNN_ variables."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchknn.errors import UsageError


def default_map(file: Path, commands: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a TOML file into the defaults of each command.

    Keys at the top hold for every command that has such an option; tables (``[train]``,
    ``[archive.list]``) for one command. ``commands`` maps a command's name to the names of its
    options, or to a mapping of the same kind for a group. Raises UsageError for a file that
    cannot be read and for a key that no command has.
    """
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"--config {file} cannot be read: {error.strerror}."
        raise UsageError(message) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"--config {file} is not valid TOML: {error}"
        raise UsageError(message) from None
    common = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    known = _all_options(commands)
    for key in common:
        _known(key.replace("-", "_"), known, file, "any command")
    return _defaults(settings, commands, common, file)


def _defaults(
    settings: Mapping[str, Any], commands: Mapping[str, Any], common: Mapping[str, Any], file: Path
) -> dict[str, Any]:
    for key, value in settings.items():
        if isinstance(value, dict):
            _known(key, set(commands), file, "patchknn")
    result: dict[str, Any] = {}
    for name, options in commands.items():
        table = settings.get(name, {})
        if isinstance(options, Mapping):
            result[name] = _defaults(table, options, common, file)
            continue
        own = {key.replace("-", "_"): value for key, value in table.items()}
        for key in own:
            _known(key, set(options), file, name)
        shared = {key.replace("-", "_"): value for key, value in common.items()}
        result[name] = {key: value for key, value in shared.items() if key in options} | own
    return result


def _all_options(commands: Mapping[str, Any]) -> set[str]:
    names: set[str] = set()
    for options in commands.values():
        names |= _all_options(options) if isinstance(options, Mapping) else set(options)
    return names


def _known(key: str, names: set[str], file: Path, owner: str) -> None:
    if key not in names:
        close = difflib.get_close_matches(key, sorted(names), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        message = f"{file}: {key!r} is not a setting of {owner}{hint}"
        raise UsageError(message)
