"""``evaluate --answers FILE``: every query's answer as ``query`` writes it, with its true label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from patchknn.files import check_output, replaced_atomically
from patchknn.search.answers import Answer, Failure
from patchknn.search.fields import NeighbourFields
from patchknn.search.query import Query

_TOGETHER = 1024


class AnswersFile:
    """An NDJSON file that grows as queries are answered.

    Of ``several`` methods each answer says its ``method``; ``fields`` of records are put beside
    each neighbour.
    """

    def __init__(
        self, file: TextIO, *, several: bool, fields: NeighbourFields | None = None
    ) -> None:
        self._file = file
        self._several = several
        self._fields = fields
        self._held: list[tuple[str, Answer]] = []

    def sink(self, methods: Sequence[str]) -> Callable[[Query, Sequence[Answer]], None]:
        """Takes the answers of ``methods``, in their order."""

        def write(_: Query, answers: Sequence[Answer]) -> None:
            self._held += zip(methods, answers, strict=True)
            if self._fields is None or len(self._held) >= _TOGETHER:
                self.flush()

        return write

    def fail(self, failure: Failure) -> None:
        """What could not be answered."""
        self.flush()
        self._write(failure.as_json())

    def flush(self) -> None:
        """Write what was held back: fields are looked up for many answers at once."""
        answers = [answer for _, answer in self._held]
        if self._fields is not None:
            answers = self._fields.beside(answers)
        for (method, _), answer in zip(self._held, answers, strict=True):
            value = answer.as_json()
            if self._several:
                value = {"query": value.pop("query"), "method": method, **value}
            self._write(value)
        self._held.clear()

    def _write(self, value: dict[str, Any]) -> None:
        # Escaped, since the name of a file may be no UTF-8.
        self._file.write(json.dumps(value, allow_nan=False) + "\n")


@contextmanager
def answers_file(
    path: Path, *, several: bool, fields: NeighbourFields | None = None
) -> Iterator[AnswersFile]:
    """The file ``path``, which is there once all is answered; what was there is replaced."""
    check_output(path, "--answers")
    with replaced_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        answers = AnswersFile(file, several=several, fields=fields)
        yield answers
        answers.flush()
