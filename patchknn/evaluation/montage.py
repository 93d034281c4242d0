"""Queries and their neighbours as one picture (paper A, Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.pictures import Picture, PictureFinder
from patchknn.files import check_output, replaced_atomically
from patchknn.search.answers import Answer, Neighbour

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

MONTAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".tif", ".tiff")

Colour = tuple[int, int, int]
Corner = tuple[int, int]

_TILE = 112
_FRAME = 5
_CELL = _TILE + 2 * _FRAME
_GAP = 8
_MARGIN = 16
_QUERY_TEXT = 172
_QUERY_LINES = 5
_CAPTION = 34
_ROW = _CELL + _CAPTION + _GAP
_HEADER = 26
_NEIGHBOURS_LEFT = _MARGIN + _CELL + _GAP + _QUERY_TEXT
_INK, _FAINT, _PAPER, _BLANK = (30, 30, 34), (110, 110, 118), (255, 255, 255), (238, 238, 240)
# A green and a red that colour-blind readers can tell apart (Okabe and Ito 2008).
_AGREES, _DIFFERS, _UNKNOWN = (0, 158, 115), (213, 60, 0), (168, 168, 174)


def draw_montage(
    answers: Sequence[Answer],
    snapshot: Snapshot,
    path: Path,
    images: Sequence[Picture | None] = (),
    slides_dir: Path | None = None,
    *,
    of: int | None = None,
) -> None:
    """Draw one row per answer; ``of`` how many there were, where these are a sample.

    ``images`` are the queries' pictures (H, W, 3) uint8, None where there is none. A neighbour's
    border is green where its class is the query's true class (where that is unknown, or no class
    of the archive: the prediction), red where it is another, grey where one of the two is
    unknown. Raises UsageError where the name of ``path`` says no picture format.
    """
    check_output(path, "--montage", MONTAGE_SUFFIXES)
    sheet = _Sheet(len(answers), max([len(answer.neighbours) for answer in answers], default=0))
    sheet.write_header(len(answers), of or len(answers))
    with PictureFinder(snapshot, slides_dir) as finder:
        for number, answer in enumerate(answers):
            top = _MARGIN + _HEADER + number * _ROW
            image = images[number] if number < len(images) else None
            sheet.paste(image, (_MARGIN, top), _INK, "no picture")
            truth = answer.label if answer.label in snapshot.classes else None
            sheet.write_query(answer, truth, (_MARGIN + _CELL + _GAP, top))
            for rank, neighbour in enumerate(answer.neighbours):
                left = _NEIGHBOURS_LEFT + rank * (_CELL + _GAP)
                colour, mark = _agreement(truth or answer.prediction, neighbour)
                picture = finder.of_row(neighbour.row)
                sheet.paste(picture, (left, top), colour, "picture\nnot found")
                sheet.write_neighbour(neighbour, mark, (left, top + _CELL + 2))
    sheet.save(path)


class _Sheet:
    """A white sheet for some rows of some neighbours, and the pen that writes on it."""

    def __init__(self, rows: int, columns: int) -> None:
        from matplotlib import get_data_path
        from PIL import Image, ImageDraw, ImageFont

        width = _NEIGHBOURS_LEFT + max(columns, 3) * (_CELL + _GAP) - _GAP + _MARGIN
        self._sheet = Image.new("RGB", (width, _MARGIN + _HEADER + rows * _ROW + _GAP), _PAPER)
        self._pen = ImageDraw.Draw(self._sheet)
        # DejaVu Sans comes with matplotlib and has Latin, Greek and Cyrillic letters.
        fonts = Path(get_data_path()) / "fonts" / "ttf"
        self._large = ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 15)
        self._bold = ImageFont.truetype(fonts / "DejaVuSans-Bold.ttf", 12)
        self._plain = ImageFont.truetype(fonts / "DejaVuSans.ttf", 11)

    def write_header(self, count: int, of: int) -> None:
        note = f"query ({count} of {of}, evenly spread)" if count < of else "query"
        self._write(note, (_MARGIN, _MARGIN), _FAINT)
        x = _NEIGHBOURS_LEFT
        for text, colour in (
            ("nearest neighbours →", _FAINT),
            ("✓ true class, or the predicted where that is unknown", _AGREES),
            ("✗ another class", _DIFFERS),
        ):
            self._write(text, (x, _MARGIN), colour)
            x += int(self._plain.getlength(text)) + 2 * _GAP

    def write_query(self, answer: Answer, truth: str | None, corner: Corner) -> None:
        x, y = corner
        room = _QUERY_TEXT - 2 * _GAP
        share = "" if answer.confidence is None else f" {answer.confidence:.0%}"
        name_room = room - int(self._large.getlength(share))
        name = self._fitted(answer.prediction or "no votes", self._large, name_room)
        self._pen.text((x, y), name + share, _INK, self._large)
        for number, (text, colour) in enumerate(_query_lines(answer, truth)):
            self._write(text, (x, y + 22 + 17 * number), colour, room)
        foot = self._fitted(answer.query, self._plain, _CELL + _QUERY_TEXT - _GAP, keep_end=True)
        self._write(foot, (_MARGIN, y + _CELL + 4), _FAINT)

    def write_neighbour(self, neighbour: Neighbour, mark: str, corner: Corner) -> None:
        x, y = corner
        label = "unlabelled" if neighbour.label is None else neighbour.label
        text = f"{self._fitted(label, self._bold, _CELL - 16)} {mark}"
        self._pen.text((x, y), text, _FAINT if neighbour.label is None else _INK, self._bold)
        bits = "bit" if neighbour.hamming == 1 else "bits"
        self._write(f"L2 {neighbour.l2:.4g} · {neighbour.hamming} {bits}", (x, y + 16), _FAINT)

    def paste(self, picture: Picture | None, corner: Corner, colour: Colour, missing: str) -> None:
        from PIL import Image, ImageOps

        x, y = corner
        self._pen.rectangle((x, y, x + _CELL - 1, y + _CELL - 1), fill=colour)
        inner = (x + _FRAME, y + _FRAME)
        if picture is not None:
            image = Image.fromarray(np.ascontiguousarray(picture))
            self._sheet.paste(ImageOps.fit(image, (_TILE, _TILE), Image.Resampling.LANCZOS), inner)
            return
        self._pen.rectangle((*inner, inner[0] + _TILE - 1, inner[1] + _TILE - 1), fill=_BLANK)
        middle = (inner[0] + _TILE / 2, inner[1] + _TILE / 2)
        self._pen.text(middle, missing, _FAINT, self._plain, anchor="mm", align="center")

    def save(self, path: Path) -> None:
        suffix = path.suffix.lower().lstrip(".")
        style = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
        with replaced_atomically(path) as temporary:
            self._sheet.save(temporary, format=style)

    def _write(self, text: str, corner: Corner, colour: Colour, room: int = 10_000) -> None:
        self._pen.text(corner, self._fitted(text, self._plain, room), colour, self._plain)

    def _fitted(self, text: str, font: FreeTypeFont, room: int, *, keep_end: bool = False) -> str:
        """Text cut to ``room`` pixels, without line ends or other control characters."""
        text = "".join(char if char.isprintable() else "�" for char in text)

        def width(candidate: str) -> float:
            return self._pen.textlength(candidate, font)

        if width(text) <= room:
            return text
        while text and width(f"…{text}") > room:
            text = text[1:] if keep_end else text[:-1]
        return f"…{text}" if keep_end else f"{text}…"


def _query_lines(answer: Answer, truth: str | None) -> list[tuple[str, Colour]]:
    before: list[tuple[str, Colour]] = []
    if answer.abstained:
        before.append(("for review", _DIFFERS))
    if truth is not None:
        mark, colour = ("✓", _AGREES) if truth == answer.prediction else ("✗", _DIFFERS)
        before.append((f"true: {truth} {mark}", colour))
    after: list[tuple[str, Colour]] = []
    if answer.classifier is not None:
        opinion = answer.classifier
        after.append((f"classifier {opinion.probability:.0%} {opinion.prediction}", _FAINT))
    if answer.radius is not None:
        widened = ", widened" if answer.widened else ""
        after.append((f"ball {answer.ball}, radius {answer.radius}{widened}", _FAINT))
    votes = _vote_lines(answer, _QUERY_LINES - len(before) - len(after))
    return [*before, *((text, _INK) for text in votes), *after]


def _vote_lines(answer: Answer, room: int) -> list[str]:
    """The votes class by class, the last line saying what had no room."""
    if len(answer.votes) < 2:
        return []
    lines = [f"{votes} × {name}" for name, votes in answer.votes.items()]
    if len(lines) <= room:
        return lines
    rest = list(answer.votes.values())[room - 1 :]
    return [*lines[: room - 1], f"{sum(rest)} in {len(rest)} other classes"]


def _agreement(wanted: str | None, neighbour: Neighbour) -> tuple[Colour, str]:
    if wanted is None or neighbour.label is None:
        return _UNKNOWN, ""
    return (_AGREES, "✓") if neighbour.label == wanted else (_DIFFERS, "✗")
