"""The table of ``left_out.py``: a row per task, a column per encoder that has not seen it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

Rows = Iterable[Mapping[str, str]]
_FIGURES = {"accuracy": "Accuracy", "mean_recall": "Mean class recall"}


def write_table(path: Path, rows: Rows, singles: Sequence[str]) -> None:
    """Write mean ± standard deviation over seeds, in Markdown; ``singles`` are the columns."""
    text = [line for figure in _FIGURES for line in _lines(list(rows), singles, figure)]
    path.write_text("\n".join(text) + "\n")


def compared(rows: Rows, figure: str) -> dict[str, dict[str, list[float]]]:
    """By task and encoder the figures of all seeds; ``+`` joins the tasks of an encoder."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["task"]][row["encoder"]].append(float(row[figure]))
    return found


def _lines(rows: Rows, singles: Sequence[str], figure: str) -> list[str]:
    head = ["left out", *singles, "all others"]
    lines = [f"{_FIGURES[figure]}:", "", _row(head), _row(["---"] * len(head))]
    for task, encoders in compared(rows, figure).items():
        together = next((values for name, values in encoders.items() if "+" in name), [])
        cells = [_cell(encoders.get(name, [])) for name in singles]
        lines.append(_row([task, *cells, _cell(together)]))
    return [*lines, ""]


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
