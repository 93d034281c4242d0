"""``evaluate --answers FILE``: every query's answer as ``query`` writes it, with its true label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from patchknn.errors import UsageError
from patchknn.files import replaced_atomically
from patchknn.search.answers import Answer, Failure
from patchknn.search.query import Query


class AnswersFile:
    """An NDJSON file that grows as queries are answered.

    Of ``several`` methods each answer says its ``method``.
    """

    def __init__(self, file: TextIO, *, several: bool) -> None:
        self._file = file
        self._several = several

    def sink(self, methods: Sequence[str]) -> Callable[[Query, Sequence[Answer]], None]:
        """Takes the answers of ``methods``, in their order."""

        def write(_: Query, answers: Sequence[Answer]) -> None:
            for method, answer in zip(methods, answers, strict=True):
                value = answer.as_json()
                if self._several:
                    value = {"query": value.pop("query"), "method": method, **value}
                self._write(value)

        return write

    def fail(self, failure: Failure) -> None:
        """What could not be answered."""
        self._write(failure.as_json())

    def _write(self, value: dict[str, Any]) -> None:
        # Escaped, since the name of a file may be no UTF-8.
        self._file.write(json.dumps(value, allow_nan=False) + "\n")


@contextmanager
def answers_file(path: Path, *, several: bool) -> Iterator[AnswersFile]:
    """The file ``path``, which is there once all is answered; what was there is replaced."""
    if not path.parent.is_dir():
        message = f"--answers {path}: there is no folder {path.parent}; make it first."
        raise UsageError(message)
    with replaced_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield AnswersFile(file, several=several)
