"""The only place that writes to stdout and stderr.

stdout carries data; stderr carries messages, and progress where it is a terminal.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, TypeVar, cast

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")
FORMATS = ("table", "tsv", "ndjson")
_MOST_COLUMNS = 7
_UNBOUNDED = 100_000  # characters of a line


def message(text: str) -> None:
    """One line on stderr; in a batch job's log it begins with the time, the host and the task.

    The tasks of an array or a job step may write to one file, and then a line must say whose it is.
    """
    head = ""
    if _is_job_log():
        from patchknn.jobs.process import host_name, task_name

        head = f"[{time.strftime('%Y-%m-%dT%H:%M:%S')} {host_name()} {task_name()}] "
    sys.stderr.write(f"{head}{visible(text)}\n")
    sys.stderr.flush()


def log(text: str) -> None:
    """One line of a batch job's log, such as that a slide is done; nothing elsewhere."""
    if _is_job_log():
        message(text)


def _is_job_log() -> bool:
    return "SLURM_JOB_ID" in os.environ and not sys.stderr.isatty()


def lines(text: str) -> None:
    """Several lines on stderr, such as a help text."""
    for line in text.splitlines():
        message(line)


def warn(text: str) -> None:
    """One line on stderr that says ``warning`` first."""
    message(f"warning: {text}")


def fail(text: str) -> None:
    """One line on stderr that says who failed first."""
    message(f"patchknn: {text}")


def output_format(requested: str | None) -> str:
    """``--format`` as given; else a table on a terminal and NDJSON in a pipe."""
    if requested is not None:
        return requested
    return "table" if sys.stdout.isatty() else "ndjson"


def visible(text: str) -> str:
    """Text whose control, direction and other unprintable characters are spelled out.

    Names are anybody's, and a terminal obeys what it is shown.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def write_text(text: str) -> None:
    """Text to stdout as it is."""
    sys.stdout.write(text)


def write_ndjson(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, flushed so that a pipe sees it at once.

    Floats are written shortest-exact; a float that is not a number becomes null.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # rare, and to look for it takes longer than to write
        text = json.dumps(_json_safe(value), ensure_ascii=False, allow_nan=False)
    sys.stdout.write(_encodable(text) + "\n")
    sys.stdout.flush()


def write_tsv_row(cells: Sequence[Any]) -> None:
    """One line of tab-separated values; None is empty; tabs and line ends become blanks.

    A cell that begins with a quotation mark is quoted, as readers of such tables expect.
    """
    sys.stdout.write("\t".join(_tsv_cell(cell) for cell in cells) + "\n")


def write_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], style: str, *, title: str = ""
) -> None:
    """Rows in the given format, streamed for TSV and NDJSON; a table shows ``columns``.

    One row with many columns, such as a closing summary, becomes a table of names and values:
    side by side they would not fit a terminal.
    """
    if style == "ndjson":
        for row in rows:
            write_ndjson(row)
    elif style == "tsv":
        write_tsv_row(columns)
        for row in rows:
            write_tsv_row([row.get(name) for name in columns])
    else:
        cells = [[row.get(name) for name in columns] for row in rows]
        if len(cells) == 1 and len(columns) > _MOST_COLUMNS:
            pairs = zip(columns, cells[0], strict=True)
            columns, cells = ("what", "value"), [[*pair] for pair in pairs if pair[1] is not None]
        print_table(columns, cells, title=title)


def flush() -> None:
    """Let a pipe see now what was written."""
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """A table for people on stdout; numbers are right-aligned and None is empty.

    In a file it is as wide as it needs to be, unless COLUMNS says how wide.
    """
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(columns):
        values = [row[position] for row in cells if row[position] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(Text(name), justify=justify, overflow="fold")
        if numeric:  # a number broken over two lines misleads; text may fold, a name too
            table.columns[-1].min_width = max(len(_table_cell(value)) for value in values)
    for row in cells:
        table.add_row(*(Text(_table_cell(cell)) for cell in row))
    console = rich_console()
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        unbounded = console.options.update(width=_UNBOUNDED)
        console.width = max(console.width, Measurement.get(console, unbounded, table).maximum)
    console.print(table)


def rich_console() -> Console:
    """A rich console on stdout, wide enough not to break paths when it is a file.

    Without colour where NO_COLOR is set.
    """
    from rich.console import Console

    stream = getattr(sys.stdout, "stream", sys.stdout)
    if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal must not end the command
        stream.reconfigure(errors="backslashreplace")
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120"))
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def progress(items: Iterable[Item], *, total: int | None = None, label: str = "") -> Iterator[Item]:
    """Iterate with a progress bar on stderr where that is a terminal, silently elsewhere."""
    if not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=label, file=sys.stderr, dynamic_ncols=True)


class ProgressBar:
    """A bar on stderr that is moved by hand; nothing where stderr is no terminal.

    ``beside_stdout``: results are printed meanwhile; no bar where a terminal shows them.
    """

    def __init__(
        self, total: int | None, label: str, unit: str, beside_stdout: bool = False
    ) -> None:
        self._bar = None
        if sys.stderr.isatty() and not (beside_stdout and sys.stdout.isatty()):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True
            )

    def advance(self, count: int = 1) -> None:
        """Move by ``count`` units."""
        if self._bar is not None:
            self._bar.update(count)

    def counting(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, moving by one for each."""
        for item in items:
            self.advance()
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def stdin_lines() -> Iterator[str]:
    """Non-empty lines of stdin as they arrive, for arguments given as ``-``.

    Bytes of a file name that are no UTF-8 are kept, as Python keeps them in arguments.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for line in sys.stdin:
        text = line.rstrip("\n").rstrip("\r")
        if text:
            yield text


def arguments(given: Iterable[str]) -> list[str]:
    """Arguments of a command line, with the lines of stdin in the place of ``-``."""
    result: list[str] = []
    for argument in given:
        result += stdin_lines() if argument == "-" else [argument]
    return result


def discard_stdout() -> None:
    """After a closed pipe: let the interpreter's own flush at exit go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def outliving_reader() -> Iterator[None]:
    """Within it work goes on when the reader of stdout has seen enough, as in ``| head``.

    It is for commands that write files: only what they print is lost.
    """
    before = sys.stdout
    sys.stdout = cast("TextIO", _Outliving(before))
    try:
        yield
    finally:
        sys.stdout = before


class _Outliving:
    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self._tried(lambda: self.stream.write(text)) or 0

    def flush(self) -> None:
        self._tried(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _tried(self, write: Callable[[], int | None]) -> int | None:
        try:
            return write()
        except BrokenPipeError:
            discard_stdout()
            message("whoever read stdout is gone; the work goes on.")
            return None


def _json_safe(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _json_safe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(entry) for entry in value]
    if hasattr(value, "item"):  # a NumPy scalar
        return _json_safe(value.item())
    return value


def _tsv_cell(cell: Any) -> str:
    if cell is None:
        return ""
    text = repr(cell) if isinstance(cell, float) else str(cell)
    text = _encodable(" ".join(text.splitlines()).replace("\t", " "))
    return '"' + text.replace('"', '""') + '"' if text.startswith('"') else text


def _encodable(text: str) -> str:
    """Text with the bytes of a file name that is no UTF-8 spelled out, as JSON would."""
    return text.encode("utf-8", "backslashreplace").decode()


def _table_cell(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else visible(str(cell))
