"""``query -o FILE``: answers appended line by line, so that a rerun goes on where one stopped.

Beside FILE lies ``FILE.settings.json``, which says how its answers were made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from patchknn.errors import ConflictError
from patchknn.files import (
    check_output,
    errors_named,
    fsync_directory,
    fsync_file,
    read_json,
    replaced_atomically,
    write_json,
)


class AnswerFile:
    """An NDJSON file of answers that were all made with the same settings.

    Opening it reads what is answered already; a line cut short by a kill and queries that failed
    are taken out, to be tried again. Where the settings differ, the old answers are kept as
    ``FILE.previous`` and ``note`` says so. Raises ConflictError where FILE was not written by
    ``query -o``.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.note: str | None = None
        self._answered: set[tuple[str, str | None]] = set()
        recorded = path.with_name(f"{path.name}.settings.json")
        wanted = json.loads(json.dumps(settings))
        check_output(path, "-o")
        if path.exists() and path.stat().st_size > 0:
            if not recorded.is_file():
                message = f"{path} exists and was not written by query -o: give another file."
                raise ConflictError(message)
            before = read_json(recorded)
            if before == wanted:
                self._read_answered()
            else:
                self._set_aside(before, wanted)
        if not recorded.is_file() or read_json(recorded) != wanted:
            write_json(recorded, wanted)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def has(self, name: str, content: str | None) -> bool:
        """Whether the query of this name, and of this content, is answered already."""
        return (name, content) in self._answered

    def append(self, answer: Mapping[str, Any], content: str | None) -> None:
        """Add one line in one write; ``content`` tells a changed file of the same name."""
        line = json.dumps({**answer, "content": content}, allow_nan=False) + "\n"
        data = memoryview(line.encode())
        with errors_named(self.path):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Force what was written to disk."""
        os.close(self._descriptor)
        fsync_file(self.path)
        fsync_directory(self.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_answered(self) -> None:
        kept = total = 0
        for line in self._lines():
            total += 1
            if line is not None:
                kept += 1
                answer = json.loads(line)
                self._answered.add((answer["query"], answer.get("content")))
        if kept == total:
            return
        with replaced_atomically(self.path) as temporary, temporary.open("wb") as file:
            file.writelines(line for line in self._lines() if line is not None)

    def _lines(self) -> Iterator[bytes | None]:
        """Each line, None in place of one that is no answer."""
        with self.path.open("rb") as file:
            for line in file:
                try:
                    answer = json.loads(line)
                    is_answer = "error" not in answer and isinstance(answer["query"], str)
                except (ValueError, KeyError, TypeError):
                    is_answer = False
                yield line if is_answer and line.endswith(b"\n") else None

    def _set_aside(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = [
            f"{name.replace('_', ' ')} {_said(before.get(name))} (now {_said(now.get(name))})"
            for name in {**now, **before}
            if before.get(name) != now.get(name)
        ]
        previous = self.path.with_name(f"{self.path.name}.previous")
        os.replace(self.path, previous)
        self.note = (
            f"{self.path} was made with {', '.join(changed)}: every query is answered anew, and "
            f"the old answers are kept as {previous}."
        )


def _said(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return " ".join(map(str, value))
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text
