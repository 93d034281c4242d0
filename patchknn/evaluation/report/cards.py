"""One query of the gallery in words: what each method said of it, and its neighbours."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from patchknn.datasets.patches import Patch
from patchknn.evaluation.pictures import PictureFinder
from patchknn.evaluation.report.picture_sheet import PictureSheet
from patchknn.evaluation.report.words import percent, plural, word
from patchknn.search.answers import Answer, Neighbour

MOST_NEIGHBOURS = 10
_BAR_STEPS = 20
_AGREES: dict[bool | None, str] = {True: "agrees", False: "disagrees", None: ""}


class Finders(NamedTuple):
    """Who finds the pictures: of queries and rows of the archive that is asked about, ``first``;
    of rows that a method found in another archive, its own among ``others``.
    """

    first: PictureFinder
    others: Mapping[str, PictureFinder] = {}

    def of(self, method: str) -> PictureFinder:
        """Whose rows the neighbours by a method are."""
        return self.others.get(method, self.first)

    def key(self, method: str, row: int) -> Hashable:
        """What a row that a method found goes by: equal for equal rows of one archive."""
        return (method, row) if method in self.others else row


class Asked(NamedTuple):
    """One query and its answers as pairs of a method's name and an Answer, the main one first.

    Its picture is that of the archived ``row``, or of ``patch``; neither: there is none. ``facts``
    are shown beside it as pairs of a name and a value.
    """

    answers: tuple[tuple[str, Answer], ...]
    row: int | None = None
    patch: Patch | None = None
    facts: tuple[tuple[str, Any], ...] = ()


class ShownNeighbour(NamedTuple):
    """A neighbour in words; ``verdict`` compares its class with the query's: y, n or u(nknown)."""

    picture: int | None
    label: str | None
    verdict: str
    distances: tuple[str, ...]
    lines: tuple[str, ...]
    whole: str


class ShownVote(NamedTuple):
    """The votes of a class, and the length of their bar of at most 20."""

    label: str
    votes: int
    bar: int


class ShownAnswer(NamedTuple):
    """What one method says, in words."""

    method: str
    prediction: str | None
    verdict: str
    confidence: str
    more: tuple[str, ...]
    votes: tuple[ShownVote, ...]
    abstained: bool
    neighbours: tuple[ShownNeighbour, ...]


class Card(NamedTuple):
    """One query as the page has it; numbers and flags are what it is sorted and filtered by."""

    number: int
    name: str
    label: str | None
    picture: int | None
    facts: tuple[tuple[str, str], ...]
    answers: tuple[ShownAnswer, ...]
    confidence: float
    prediction: str | None
    verdict: str
    abstained: bool
    disagrees: bool


def make_card(
    number: int,
    one: Asked,
    classes: frozenset[str],
    finders: Finders,
    sheet: PictureSheet,
    *,
    wrong: bool,
) -> Card:
    """Put a query into words, its pictures into ``sheet``; of a class that is none of ``classes``
    it is ``wrong``, or nobody can say.
    """
    _, main = one.answers[0]
    truth = main.label if main.label in classes else None
    judged = main.label if wrong else truth
    opinion = main.classifier
    return Card(
        number=number,
        name=main.query,
        label=main.label,
        picture=_query_picture(one, finders.first, sheet),
        facts=tuple((name, word(value)) for name, value in one.facts if value is not None),
        answers=tuple(
            _answer(method, a, finders, sheet, truth=truth, judged=judged)
            for method, a in one.answers
        ),
        confidence=sureness(main),
        prediction=main.prediction,
        verdict=_verdict(judged, main.prediction, unknown=judged is None),
        abstained=main.abstained,
        disagrees=opinion is not None and opinion.agrees is False,
    )


def _query_picture(one: Asked, finder: PictureFinder, sheet: PictureSheet) -> int | None:
    row, patch = one.row, one.patch
    if row is not None:
        return sheet.add(row, lambda: finder.of_row(row))
    if patch is not None:
        return sheet.add((patch.path, patch.x, patch.y), lambda: finder.of_patch(patch))
    return None


def _answer(
    method: str,
    answer: Answer,
    finders: Finders,
    sheet: PictureSheet,
    *,
    truth: str | None,
    judged: str | None,
) -> ShownAnswer:
    total = sum(answer.votes.values())
    wanted = truth or answer.prediction
    return ShownAnswer(
        method=method,
        prediction=answer.prediction,
        verdict=_verdict(judged, answer.prediction, unknown=judged is None),
        confidence=percent(answer.confidence),
        more=tuple(_more(answer)),
        votes=tuple(
            ShownVote(label, votes, max(1, round(_BAR_STEPS * votes / total)))
            for label, votes in answer.votes.items()
        ),
        abstained=answer.abstained,
        neighbours=tuple(
            _neighbour(one, wanted, _picture(one.row, method, finders, sheet))
            for one in shown_neighbours(answer)
        ),
    )


def _more(answer: Answer) -> list[str]:
    """What else is said of an answer; keys that are not there in every version are asked for."""
    told = answer.as_json()
    lines = []
    if (calibrated := told.get("calibrated_confidence")) is not None:
        stale = " (stale)" if told.get("calibration_stale") else ""
        lines.append(f"calibrated {percent(calibrated)}{stale}")
    if answer.weighted_confidence is not None:
        lines.append(f"by distance {percent(answer.weighted_confidence)}")
    if answer.classifier is not None:
        opinion = answer.classifier
        verdict = _AGREES[opinion.agrees]
        said = f"classifier {opinion.prediction} {percent(opinion.probability)}"
        lines.append(f"{said}, {verdict}" if verdict else said)
    if answer.radius is not None:
        widened = " (widened)" if answer.widened else ""
        within = plural(answer.radius, "bit")
        lines.append(f"{plural(answer.ball, 'patch', 'patches')} within {within}{widened}")
    if (plausible := told.get("prediction_set")) is not None:
        lines.append(f"plausible: {word(plausible)}")
    if told.get("out_of_distribution"):
        lines.append("unlike anything in the archive")
    return lines


def _picture(row: int, method: str, finders: Finders, sheet: PictureSheet) -> int | None:
    return sheet.add(finders.key(method, row), lambda: finders.of(method).of_row(row))


def _neighbour(one: Neighbour, wanted: str | None, picture: int | None) -> ShownNeighbour:
    place = f"x {one.x}, y {one.y}" if one.x >= 0 or one.y >= 0 else ""
    patient = "" if one.patient is None else f"patient {one.patient}"
    fields = [f"{name}: {word(value)}" for name, value in (one.fields or {}).items()]
    bits = () if one.hamming < 0 else (plural(one.hamming, "bit"),)
    lines = tuple(line for line in (one.source, place, patient, *fields) if line)
    return ShownNeighbour(
        picture=picture,
        label=one.label,
        verdict=_verdict(wanted, one.label, unknown=wanted is None or one.label is None),
        distances=(f"L2 {one.l2:.4g}", *bits),
        lines=lines,
        # What does not fit below a picture of a hundred pixels is read by pointing at it.
        whole=" · ".join(lines) if max(map(len, lines), default=0) > 30 else "",
    )


def shown_neighbours(answer: Answer) -> tuple[Neighbour, ...]:
    """Those that there is room for."""
    return answer.neighbours[:MOST_NEIGHBOURS]


def sureness(answer: Answer) -> float:
    """The confidence, calibrated where it is; no votes are the least sure of all."""
    return -1.0 if answer.sureness is None else answer.sureness


def _verdict(wanted: str | None, found: str | None, *, unknown: bool) -> str:
    if unknown:
        return "u"
    return "y" if wanted == found else "n"
