"""How one answer looks on a terminal: the vote on the left, the neighbours on the right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patchknn.cli.console import visible
from patchknn.search.answers import Answer, Judgement, cell
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_BAR_WIDTH = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SIDE_BY_SIDE = 100  # columns from which both halves fit beside each other
_LEFT_WIDTH = 38


def answer_lines(answer: Answer, console: Console, settings: SearchSettings) -> RenderableType:
    """One answer for people; every text of the archive is shown as it is, never obeyed.

    Nothing is said by colour alone.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((visible(answer.query), "bold"))
    if answer.label is not None:
        title.append(f"   labelled {visible(answer.label)}", style="dim")
    summary, neighbours = _summary(answer, console, settings), _neighbours(answer)
    if console.width < _SIDE_BY_SIDE:
        return Group(title, Padding(summary, (0, 0, 0, 2)), neighbours, "")
    halves = Table.grid(padding=(0, 3))
    halves.add_column(width=_LEFT_WIDTH)
    halves.add_column(ratio=1)
    halves.add_row(summary, neighbours)
    return Group(title, Padding(halves, (0, 0, 0, 2)), "")


def percent(share: float | None) -> str:
    """A share as whole per cent; what is not everything never reads 100 %."""
    if share is None:
        return "-"
    return f"{min(round(share * 100), 100 if share == 1 else 99)} %"


def _summary(answer: Answer, console: Console, settings: SearchSettings) -> RenderableType:
    from rich.text import Text

    lines = []
    if answer.prediction is None:
        lines.append(Text("no prediction: no votes", style="bold"))
    else:
        style = "bold yellow" if answer.abstained else "bold green"
        head = Text(f"{visible(answer.prediction)}  {percent(answer.confidence)}", style=style)
        head.append(f"  ({percent(answer.weighted_confidence)} by distance)", style="dim not bold")
        lines.append(head)
    if answer.judgement is not None:
        lines += [Text(line, style=style) for line, style in _judged_lines(answer.judgement)]
    if answer.abstained:
        votes, needed = sum(answer.votes.values()), settings.votes_needed
        reason = f"{votes} of {needed} votes needed"
        if votes >= needed and settings.abstain_below is not None:
            whose = "" if answer.judgement is None else "calibrated "
            reason = f"{whose}confidence below {settings.abstain_below:.0%}"
        lines.append(Text(f"for review: {reason}", style="yellow"))
    lines += _vote_bars(answer, ascii_only=not _can_draw(console))
    lines += [Text(line, style="dim") for line in _stage_lines(answer, settings.k)]
    if answer.explain is not None:
        lines += [Text(line, style="dim") for line in _explain_lines(answer.explain)]
    if answer.classifier is not None:
        opinion = answer.classifier
        verdict = {True: "agrees", False: "disagrees", None: ""}[opinion.agrees]
        text = f"classifier {visible(opinion.prediction)} {percent(opinion.probability)} {verdict}"
        lines.append(Text(text.rstrip(), style="red" if opinion.agrees is False else "dim"))
    return Text("\n").join(lines)


def _judged_lines(judged: Judgement) -> list[tuple[str, str]]:
    """Lines and their styles."""
    lines = []
    if judged.confidence is not None:
        lines.append((f"{percent(judged.confidence)} calibrated", ""))
    classes = ", ".join(map(visible, judged.prediction_set)) or "none of the classes"
    lines.append((f"{judged.coverage:.0%} sure: {classes}", ""))
    if judged.out_of_distribution:
        lines.append(("like nothing in the archive", "red"))
    return lines


def _vote_bars(answer: Answer, *, ascii_only: bool) -> list[Any]:
    from rich.text import Text

    total = sum(answer.votes.values())
    names = {name: visible(name) for name in answer.votes}
    width = min(max(map(len, names.values()), default=0), _LEFT_WIDTH - _BAR_WIDTH - 6)
    digits = max((len(str(votes)) for votes in answer.votes.values()), default=0)
    lines = []
    for name, votes in answer.votes.items():
        shown = names[name] if len(names[name]) <= width else names[name][: width - 1] + "…"
        bar = _bar(votes / total, ascii_only=ascii_only)
        style = "cyan" if name == answer.prediction else "dim cyan"
        lines.append(Text.assemble(f"{shown:<{width}} {votes:>{digits}} ", (bar, style)))
    return lines


def _bar(share: float, *, ascii_only: bool) -> str:
    if ascii_only:
        return "#" * max(1, round(share * _BAR_WIDTH))
    eighths = max(1, round(share * _BAR_WIDTH * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _can_draw(console: Console) -> bool:
    try:
        "█▏…".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _explain_lines(explain: Mapping[str, Any]) -> list[str]:
    index = f"{explain['segments']} index segment{'s' * (explain['segments'] != 1)}"
    if explain["shards_without_index"]:
        index += f", {explain['shards_without_index']} shards without"
    return [
        f"{explain['path']} ({explain['kernels']}), {index}",
        f"{explain['lookups']} look-ups, {explain['candidates']} candidates",
        f"{explain['codes_scanned']} codes scanned",
        f"{explain['rows_read']} rows read, {explain['rows_spared']} spared",
    ]


def _stage_lines(answer: Answer, k: int) -> list[str]:
    if answer.radius is None:
        lines = [f"{answer.ball} candidates by hash vectors"]
    else:
        bits = "bit" if answer.radius == 1 else "bits"
        widened = ", widened" if answer.widened else ""
        lines = [f"ball of {answer.ball} within {answer.radius} {bits}{widened}"]
    if len(answer.neighbours) < k:
        remedy = "" if answer.radius is None else "; see --max-radius"
        lines.append(f"{len(answer.neighbours)} of {k} found{remedy}")
    return lines


def _neighbours(answer: Answer) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    if not answer.neighbours:
        return Text("no neighbours", style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("#", justify="right")
    table.add_column("patch", overflow="fold", ratio=None)
    table.add_column("label")
    table.add_column("bits", justify="right")
    table.add_column("L2", justify="right")
    patients = any(neighbour.patient is not None for neighbour in answer.neighbours)
    if patients:
        table.add_column("patient")
    for name in answer.neighbours[0].fields or ():
        table.add_column(Text(visible(name)), overflow="fold")
    decimals = _decimals(answer.neighbours[-1].l2)
    for rank, neighbour in enumerate(answer.neighbours, start=1):
        label = "-" if neighbour.label is None else visible(neighbour.label)
        other = neighbour.label is not None and neighbour.label != answer.prediction
        cells = [
            Text(str(rank), style="dim"),
            Text(visible(neighbour.id)),
            Text(label, style="dim" if neighbour.label is None else "red" if other else "green"),
            Text(str(neighbour.hamming)),
            Text(f"{neighbour.l2:.{decimals}f}"),
        ]
        if patients:
            cells.append(Text(visible(neighbour.patient or "-"), style="dim"))
        values = (neighbour.fields or {}).values()
        cells += [Text("-" if value is None else visible(str(cell(value)))) for value in values]
        table.add_row(*cells)
    return table


def _decimals(largest: float) -> int:
    """Digits after the point that show four figures of the largest distance, at most 6."""
    return min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 0
