"""The gallery: each query beside its neighbours, several methods one above the other (paper A,
Fig. 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from patchknn.evaluation.report.cards import (
    Asked,
    Card,
    Finders,
    make_card,
    shown_neighbours,
    sureness,
)
from patchknn.evaluation.report.picture_sheet import PictureSheet

# Of the gallery's texts and pictures together: with the figures the page stays below 15 MB, which
# a browser opens at once and a mail server lets through.
MOST_BYTES = 13_500_000
_LEAST_FOR_PICTURES = 4_000_000
_SAFE = ("utf-8", "backslashreplace")


@dataclass(frozen=True, eq=False)
class Gallery:
    """Cards in the order in which they are first shown; ``of`` how many queries there were."""

    cards: tuple[Card, ...]
    sheet: PictureSheet
    of: int
    classes: tuple[str, ...]
    predictions: tuple[str, ...]
    methods: tuple[str, ...]
    no_room: tuple[str, ...]
    missing: int


def build_gallery(
    asked: Iterable[Asked],
    finders: Finders,
    classes: Sequence[str],
    *,
    of: int | None = None,
    by_confidence: bool = True,
    unknown_is_wrong: bool = False,
    most_bytes: int = MOST_BYTES,
    on_read: Callable[[], None] = lambda: None,
) -> Gallery:
    """Read the pictures and put everything into words.

    ``classes`` are those of the archive: neighbours of a query of another one are compared with
    its prediction, which nobody can call right or wrong unless ``unknown_is_wrong``.
    ``of`` says how many queries there were, where these are some of them; the least sure is first
    unless ``by_confidence`` is False. Texts and pictures stay below about ``most_bytes``: the more
    there are, the smaller are the pictures, and where texts alone are too many the last methods
    have no room. ``on_read`` is called after each query.
    """
    ordered = list(asked)
    if by_confidence:
        ordered.sort(key=lambda one: sureness(one.answers[0][1]))
    every = _methods(ordered)
    while (
        len(methods := _methods(ordered)) > 1
        and sum(map(_text_bytes, ordered)) > most_bytes - _LEAST_FOR_PICTURES
    ):
        ordered = [_without(one, methods[-1]) for one in ordered]
    pictures = {
        finders.key(method, neighbour.row)
        for one in ordered
        for method, answer in one.answers
        for neighbour in shown_neighbours(answer)
    }
    pictures |= {one.row for one in ordered if one.row is not None}
    unstored = sum(one.row is None and one.patch is not None for one in ordered)
    room = max(most_bytes - sum(map(_text_bytes, ordered)), _LEAST_FOR_PICTURES)
    sheet = PictureSheet(len(pictures) + unstored, room)
    cards, known = [], frozenset(classes)
    for number, one in enumerate(ordered, start=1):
        cards.append(make_card(number, one, known, finders, sheet, wrong=unknown_is_wrong))
        on_read()
    labels = {card.label for card in cards if card.label is not None}
    predictions = {card.prediction for card in cards if card.prediction is not None}
    return Gallery(
        cards=tuple(cards),
        sheet=sheet,
        of=len(cards) if of is None else of,
        classes=tuple(sorted(labels)),
        predictions=tuple(sorted(predictions)),
        methods=methods,
        no_room=every[len(methods) :],
        missing=sheet.missing,  # features alone never had any
    )


def _methods(asked: Iterable[Asked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(method for one in asked for method, _ in one.answers))


def _without(one: Asked, method: str) -> Asked:
    return one._replace(answers=tuple(entry for entry in one.answers if entry[0] != method))


def _text_bytes(one: Asked) -> int:
    """About what a query's card takes without its pictures."""
    neighbours = [n for _, answer in one.answers for n in shown_neighbours(answer)]
    names = sum(
        2 * len(f"{n.source}{n.patient}{n.fields or ''}".encode(*_SAFE)) for n in neighbours
    )
    return 900 + 500 * len(one.answers) + 320 * len(neighbours) + names
