"""Plain ``query`` lines, read without typer: to start it takes longer than to answer one query.

A shell loop asks one query per process. Only what stands below is read here; every other line,
and every wrong one, is left to typer, which alone says what is wrong. A test holds that both
read alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NUMBERS = {"--k": "k", "--radius": "radius", "--max-radius": "max_radius"}
_EXCLUSIONS = ("none", "self", "slide", "patient")
FORMATS = ("table", "tsv", "ndjson")
MOST_DIGITS = 9
# Variables that typer would heed: of a settings file and of debugging it is told beforehand.
_ROOT_VARIABLES = {
    *("PATCHKNN_VERSION", "PATCHKNN_HELP", "PATCHKNN_ARCHIVE_HELP", "_PATCHKNN_COMPLETE"),
}


class PlainQuery:
    """What a plain line says."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.settings: dict[str, Any] = {}
        self.format: str | None = None
        self.explain = False


def read_plain(arguments: Sequence[str], environment: Mapping[str, str]) -> PlainQuery | None:
    """The arguments of ``patchknn`` as a plain query, None where typer is to read them."""
    if arguments[:1] != ["query"] or any(is_heeded(name, "QUERY") for name in environment):
        return None
    plain = PlainQuery()
    words = iter(arguments[1:])
    for word in words:
        if not word.startswith("-"):
            plain.paths.append(word)
        elif word == "--labelled":
            plain.settings["labelled_only"] = True
        elif word == "--explain":
            plain.explain = True
        elif not _take(plain, word, next(words, "")):
            return None
    return plain if plain.paths and all(plain.paths) else None


def _take(plain: PlainQuery, option: str, value: str) -> bool:
    """Take one option with its value; False where that is not plain."""
    if not value or value.startswith("-"):
        return False
    if option == "--id":
        plain.ids.append(value)
    elif option == "--label":
        plain.labels.append(value)
    elif option == "--exclude-same" and value in _EXCLUSIONS:
        plain.settings["exclude_same"] = value
    elif option == "--format" and value in FORMATS:
        plain.format = value
    elif option in _NUMBERS and value.isdecimal() and value.isascii() and len(value) < MOST_DIGITS:
        plain.settings[_NUMBERS[option]] = int(value)
    else:
        return False
    return True


def is_heeded(variable: str, command: str) -> bool:
    """Whether typer would heed an environment variable for a command."""
    return variable.startswith(f"PATCHKNN_{command}_") or variable in _ROOT_VARIABLES
