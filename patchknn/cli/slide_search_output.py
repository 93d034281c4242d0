"""How answers of ``slide search`` look: a table, TSV or NDJSON on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from patchknn.cli import console
from patchknn.cli.console import visible
from patchknn.search.answers import Failure, cell
from patchknn.wholeslide.mosaics.slide_answers import SlideAnswer, SlideNeighbour
from patchknn.wholeslide.mosaics.slide_search import SlideSearchSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

TSV_COLUMNS = (
    *("query", "label", "rank", "slide", "slide_label", "patient", "distance"),
    *("prediction", "confidence"),
)


class SlideAnswerWriter:
    """Writes answers as they come and counts them; a failure also gets its line on stderr.

    ``fields`` are the names of those that neighbours have.
    """

    def __init__(
        self, style: str, settings: SlideSearchSettings, fields: Sequence[str] = ()
    ) -> None:
        self._style = style
        self._settings = settings
        self._fields = tuple(fields)
        self._answered = self._failed = 0
        if style == "tsv":
            added = [f"fields.{name}" if name in TSV_COLUMNS else name for name in fields]
            console.write_tsv_row([*TSV_COLUMNS, *added])

    def write(self, answer: SlideAnswer | Failure) -> None:
        """Write one answer."""
        if isinstance(answer, Failure):
            self._failed += 1
            console.fail(answer.error)
        else:
            self._answered += 1
        if self._style == "ndjson":
            console.write_ndjson(answer.as_json())
        elif isinstance(answer, SlideAnswer) and self._style == "tsv":
            for row in _tsv_rows(answer, self._fields):
                console.write_tsv_row(row)
            console.flush()
        elif isinstance(answer, SlideAnswer):
            console.rich_console().print(_lines(answer))

    @property
    def exit_code(self) -> int:
        """0: all done; 3: some slides failed; 1: all did."""
        if not self._failed:
            return 0
        return 3 if self._answered else 1


def _tsv_rows(answer: SlideAnswer, fields: Sequence[str]) -> Iterator[list[Any]]:
    """One row per neighbour; an answer without any has one row with those cells empty."""
    start, end = [answer.query, answer.label], [answer.prediction, answer.confidence]
    if not answer.neighbours:
        yield [*start, *[None] * 5, *end, *[None] * len(fields)]
    for rank, one in enumerate(answer.neighbours, start=1):
        found = [rank, one.slide, one.label, one.patient, one.distance]
        yield [*start, *found, *end, *map(cell, (one.fields or {}).values())]


def _lines(answer: SlideAnswer) -> RenderableType:
    """One answer for people; nothing is said by colour alone."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    title = Text.assemble((visible(answer.query), "bold"))
    if answer.label is not None:
        title.append(f"   labelled {visible(answer.label)}", style="dim")
    title.append(f"   {answer.mosaic} of {answer.patches} patches", style="dim")
    votes = Text("   ").join(
        [_vote(one.k, one.prediction, one.confidence) for one in answer.majorities]
    )
    body = [votes, _table(answer)] if answer.neighbours else [Text("no other slide", style="dim")]
    return Group(title, Padding(Group(*body), (0, 0, 1, 2)))


def _vote(k: int, prediction: str | None, confidence: float | None) -> Any:
    from rich.text import Text

    from patchknn.cli.query_table import percent

    told = "no vote" if prediction is None else f"{visible(prediction)} {percent(confidence)}"
    return Text.assemble((f"top {k}: ", "dim"), (told, "bold green" if prediction else "dim"))


def _table(answer: SlideAnswer) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("#", justify="right")
    table.add_column("slide", overflow="fold")
    table.add_column("label")
    table.add_column("bits" if answer.by == "hamming" else "L2", justify="right")
    table.add_column("patient")
    for name in answer.neighbours[0].fields or ():
        table.add_column(visible(name), overflow="fold")
    table.add_column("most alike (here ~ there)")
    for rank, one in enumerate(answer.neighbours, start=1):
        other = one.label is not None and one.label != answer.prediction
        table.add_row(
            Text(str(rank), style="dim"),
            Text(visible(one.slide)),
            Text(visible(one.label or "-"), style="red" if other else "green"),
            Text(f"{one.distance:.4g}"),
            Text(visible(one.patient or "-"), style="dim"),
            *(Text(_told(value)) for value in (one.fields or {}).values()),
            Text(_best(one), style="dim"),
        )
    return table


def _told(value: Any) -> str:
    return "-" if value is None else visible(str(cell(value)))


def _best(one: SlideNeighbour) -> str:
    """The places of the two patches that are most alike, in level-0 pixels."""
    if not one.matches or one.matches[0].query[0] < 0:
        return ""
    mine, its = one.matches[0].query, one.matches[0].found
    return f"{mine[0]}_{mine[1]} ~ {its[0]}_{its[1]}"
