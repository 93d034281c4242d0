"""Where answers go: a table, TSV or NDJSON on stdout, or a file that a rerun continues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from patchknn.cli import console
from patchknn.search.answers import Answer, Failure, cell
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.cli.answer_file import AnswerFile

TSV_COLUMNS = (
    *("query", "rank", "id", "label", "hamming", "l2", "source", "x", "y", "patient"),
    *("prediction", "confidence", "abstained"),
)
CALIBRATED_COLUMNS = (
    "calibrated_confidence",
    "prediction_set",
    "out_of_distribution",
    "strangeness",
)


class AnswerWriter:
    """Writes answers as they come and counts them; a failure also gets its line on stderr."""

    def __init__(
        self,
        style: str,
        settings: SearchSettings,
        file: AnswerFile | None = None,
        fields: Sequence[str] = (),
        *,
        calibrated: bool = False,
    ) -> None:
        self.answered = self.skipped = self.failed = 0
        self._style = style
        self._settings = settings
        self._file = file
        self._fields = tuple(fields)
        if style == "tsv" and file is None:
            # A field may be called like one of the columns.
            columns = TSV_COLUMNS + (CALIBRATED_COLUMNS if calibrated else ())
            added = [f"fields.{name}" if name in columns else name for name in fields]
            console.write_tsv_row([*columns, *added])

    def skip(self, name: str, content: str | None) -> bool:
        """Whether this query is answered in the file already; counts it if so."""
        answered = self._file is not None and self._file.has(name, content)
        self.skipped += answered
        return answered

    def write(self, answer: Answer | Failure, content: str | None) -> None:
        """Write one answer; ``content`` is the fingerprint of the query's file."""
        if isinstance(answer, Failure):
            self.failed += 1
            console.fail(answer.error)
        else:
            self.answered += 1
        if self._file is not None:
            self._file.append(answer.as_json(), content)
        elif self._style == "ndjson":
            console.write_ndjson(answer.as_json())
        elif isinstance(answer, Answer) and self._style == "tsv":
            for row in _tsv_rows(answer, self._fields):
                console.write_tsv_row(row)
            console.flush()
        elif isinstance(answer, Answer):
            from patchknn.cli.query_table import answer_lines

            terminal = console.rich_console()
            terminal.print(answer_lines(answer, terminal, self._settings))

    @property
    def exit_code(self) -> int:
        """0: all done; 3: some queries failed; 1: all did."""
        if not self.failed:
            return 0
        return 3 if self.answered or self.skipped else 1


def _tsv_rows(answer: Answer, fields: Sequence[str]) -> Iterator[list[Any]]:
    """One row per neighbour; an answer without any has one row with those cells empty."""
    end = [answer.prediction, answer.confidence, str(answer.abstained).lower()]
    empty = [None] * (len(TSV_COLUMNS) - 1 - len(end))
    if answer.judgement is not None:
        told = answer.judgement
        classes = "|".join(told.prediction_set)
        end += [told.confidence, classes, cell(told.out_of_distribution), told.strangeness]
    if not answer.neighbours:
        yield [answer.query, *empty, *end, *[None] * len(fields)]
    for rank, neighbour in enumerate(answer.neighbours, start=1):
        values = neighbour._replace(fields=None).as_json().values()
        added = [] if neighbour.fields is None else map(cell, neighbour.fields.values())
        yield [answer.query, rank, *values, *end, *added]
